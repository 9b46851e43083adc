"""An OpenTelemetry collector of a few lines: it takes OTLP/HTTP and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_ERROR = 2


@dataclass(frozen=True)
class Seen:
    """A span as it came: ids in hex, times in Unix nanoseconds, attributes without our prefix, events by name."""

    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    failed: bool
    about: dict[str, Any]
    process: dict[str, Any]
    events: list[str]


@dataclass
class Collector:
    """``url`` is where spans go."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str, **about: Any) -> Seen:
        (found,) = (span for span in self.named(name) if about.items() <= span.about.items())
        return found

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            process = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_seen(span, process) for span in scope.spans]


@contextmanager
def collector() -> Iterator[Collector]:
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        """Answers every request well."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()


def _seen(span: Any, process: dict[str, Any]) -> Seen:
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == _ERROR,
        _values(span.attributes),
        process,
        [event.name for event in span.events],
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {
        each.key.removeprefix("framelane."): getattr(each.value, each.value.WhichOneof("value")) for each in attributes
    }

"""Spans of this process, on their way to an OpenTelemetry collector (OTLP/HTTP). Off unless a run asks for them.

Invariants: where traces are off nothing of OpenTelemetry is imported; a collector that does not answer costs one log
line a process, and nobody waits for it longer than PATIENCE_S. A span's place in its trace travels between processes as
a W3C ``traceparent``.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from gamecraft_core.base.errors import FramelaneError, UsageError
from gamecraft_core.base.redact import redact
from gamecraft_core.base.telemetry import Telemetry
from gamecraft_core.base.version import VERSION

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger("framelane.traces")

#: How long the last spans may take to be sent.
PATIENCE_S = 2.0
_EVERY_MS = 500
_REQUEST_TIMEOUT_S = 5.0
_MOST_WAITING, _MOST_AT_ONCE = 16_384, 512
_PREFIX = "framelane."


class Span:
    """One span that is under way, or was. Times are Unix seconds; without one, now."""

    def __init__(self, spans: Spans, span: trace.Span) -> None:
        self._spans = spans
        self._span = span

    @property
    def traceparent(self) -> str:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, self._context)
        return carrier.get("traceparent", "")

    @property
    def _context(self) -> Context:
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(self._span)

    def set(self, **attributes: Any) -> None:
        self._span.set_attributes(_named(attributes))

    def event(self, name: str, **attributes: Any) -> None:
        self._span.add_event(name, _named(attributes))

    def child(self, name: str, began: float | None = None, **attributes: Any) -> Span:
        return self._spans.start(name, self._context, began, **attributes)

    def end(self, at: float | None = None, error: BaseException | None = None) -> None:
        from opentelemetry.trace import Status, StatusCode

        if error is not None:
            said = error.message if isinstance(error, FramelaneError) else redact(str(error))
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(Status(StatusCode.ERROR, said))
        self._span.end(_ns(at))


class Spans:
    """A process's way to the collector; ``who`` it is: a lane's name, or ``control``."""

    def __init__(self, telemetry: Telemetry, who: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            remedy = "install the extra: framelane[traces]"
            raise UsageError(f"{error.name} is missing", field="telemetry.traces", remedy=remedy) from error
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would tell of every batch that is lost
        where = telemetry.traces or ""
        self._exporter = _Told(OTLPSpanExporter(where, timeout=_REQUEST_TIMEOUT_S), where)
        resource: dict[str, str | int] = {
            "service.name": "framelane",
            "service.version": VERSION,
            "service.instance.id": who,
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            f"{_PREFIX}run": telemetry.run,
        }
        self._provider = TracerProvider(resource=Resource.create({**resource}), shutdown_on_exit=False)
        batches = BatchSpanProcessor(cast("SpanExporter", self._exporter), _MOST_WAITING, _EVERY_MS, _MOST_AT_ONCE)
        self._provider.add_span_processor(batches)
        self._tracer = self._provider.get_tracer("framelane", VERSION)

    def start(self, name: str, parent: str | Context = "", began: float | None = None, **attributes: Any) -> Span:
        """``parent``: a ``traceparent``; one that is empty or malformed begins a trace."""
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if isinstance(parent, str):
            parent = TraceContextTextMapPropagator().extract({"traceparent": parent}, Context())
        return Span(self, self._tracer.start_span(name, parent, attributes=_named(attributes), start_time=_ns(began)))

    def flush(self) -> None:
        """Send what has ended."""
        self._within_patience(self._provider.force_flush)

    def close(self) -> None:
        """The same, and nothing more is taken."""
        self._within_patience(self._provider.shutdown)

    def _within_patience(self, call: Any) -> None:
        """Neither call keeps to a time of its own; where nobody has answered before, there is nothing to wait for."""
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(0 if self._exporter.failing else PATIENCE_S)


class _Told:
    """An exporter that says once that it does not get through."""

    def __init__(self, exporter: Any, where: str) -> None:
        self._exporter = exporter
        self._where = where
        self._told = False
        self.failing = False

    def export(self, spans: Any) -> Any:
        result = self._exporter.export(spans)
        self.failing = result.name != "SUCCESS"
        if self.failing and not self._told:
            self._told = True
            log.warning("no spans reach %s: traces of this run will have gaps", self._where)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def open_spans(telemetry: Telemetry, who: str) -> Spans | None:
    """None where traces are off."""
    return Spans(telemetry, who) if telemetry.traces else None


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{_PREFIX}{name}": value for name, value in attributes.items() if value is not None}


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e9)

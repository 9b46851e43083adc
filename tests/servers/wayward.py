"""An HTTP proxy before an S3 server with ideas of its own: it refuses methods, drops headers, or is of another time."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_REFUSED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@contextmanager
def wayward(target: str, *, refuses: str = "", drops: str = "", ahead_s: float = 0.0) -> Iterator[str]:
    """A URL that forwards to ``target``; ``refuses`` is "METHOD PART-OF-URL", answered with 403 AccessDenied."""
    there = urlsplit(target)
    method, _, part = refuses.partition(" ")

    class Handler(BaseHTTPRequestHandler):
        """One connection to the server for each request."""

        protocol_version = "HTTP/1.1"

        def _carry(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == method and part in self.path:
                self._answer(403, {"Content-Type": "application/xml"}, _REFUSED)
                return
            onward = http.client.HTTPConnection(there.hostname or "", there.port)
            headers = {name: value for name, value in self.headers.items() if name.lower() != drops.lower()}
            onward.request(self.command, self.path, body, headers)
            answer = onward.getresponse()
            told = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
            self._answer(answer.status, told, answer.read())
            onward.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            date = parsedate_to_datetime(headers.pop("Date", formatdate(usegmt=True)))
            headers = {"Content-Length": str(len(body)), **headers}
            for name, value in {**headers, "Date": formatdate(date.timestamp() + ahead_s, usegmt=True)}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _carry

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

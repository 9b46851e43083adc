"""The run's one Prometheus endpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from gamecraft_core.base.errors import UsageError

log = logging.getLogger("framelane.metrics")


@contextmanager
def serve_metrics(registry: CollectorRegistry, port: int) -> Iterator[str]:
    """Serve ``registry`` until the block ends; yields its URL. A taken port is exchanged for a free one."""
    if not 0 <= port < 65536:
        raise UsageError(f"{port} is not a port", field="metrics-port", remedy="0 to 65535; 0 takes a free one")
    try:
        server, thread = start_http_server(port, registry=registry)
    except OSError:
        log.warning("port %d is taken; metrics get a free one", port)
        server, thread = start_http_server(0, registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

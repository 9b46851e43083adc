"""Logging set-up: plain lines on stderr without credentials, one place, chosen by the entry point."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from gamecraft_core.base.redact import redact


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at that moment: a live display puts itself in between."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("the stream is sys.stderr")


class _Redacting(logging.Formatter):
    """Takes credentials out of the whole entry, tracebacks and third parties' words included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def setup(level: str = "INFO") -> None:
    """Send every framelane log line to stderr with time and level; third parties stay at WARNING."""
    handler = _Stderr()
    handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("framelane").setLevel(level)

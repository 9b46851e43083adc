"""Logging set-up: one line an entry on stderr, without credentials, as text or as JSON, chosen by the entry point.

A line's message says what happened; FIELDS say to whom, from the call's ``extra``, from the ``about`` block that it
stands in, and from what the whole process was set up for. In JSON they are keys of their own, so that a session can be
followed through every process; text shows them in brackets.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from gamecraft_core.base.redact import redact

Form = Literal["text", "json"]

#: Whom a line is about, in the order in which text shows them. ``run`` is the same in all of a process: JSON only.
FIELDS = ("run", "tenant", "row", "session", "chunk", "stage", "lane", "rank")

_ABOUT: ContextVar[Mapping[str, Any]] = ContextVar("framelane-log-fields", default={})  # noqa: B039 - never changed
_log = logging.getLogger("framelane")


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


class TextLines(logging.Formatter):
    """Time of day, level, logger, message and fields; a traceback below."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%H:%M:%S")
        self._known = known

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = _fields(record, self._known)
        shown = " ".join(f"{name}={value}" for name, value in fields.items() if name != "run")
        return super().formatMessage(record) + (f" [{shown}]" if shown else "")


class JsonLines(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, the fields that are known, exception."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        self._known = known

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        told: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record, self._known),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        # Before they are quoted: what redact looks for is text as people and clients write it.
        return json.dumps({name: redact(value) if isinstance(value, str) else value for name, value in told.items()})


def setup(form: Form = "text", level: str = "INFO", **known: Any) -> None:
    """Send every framelane log line to stderr in ``form``; third parties stay at WARNING.

    ``known`` are fields of the whole process. With JSON, warnings and what nobody catches come as such lines, too.
    """
    handler = _Stderr()
    handler.setFormatter(JsonLines(known) if form == "json" else TextLines(known))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("framelane").setLevel(level)
    if form == "json":
        logging.captureWarnings(True)
        sys.excepthook = _uncaught


def take_over(name: str) -> None:
    """Lines of the logger ``name`` and below go the way of all others; a library may have given it its own."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True


def in_json() -> bool:
    """stderr is for machines: nothing but such lines belongs on it."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def last_word(text: str) -> None:
    """What a command ends with where it failed: for people as it is, among JSON lines as one of them."""
    if in_json():
        _log.error("%s", text)
    else:
        print(text, file=sys.stderr)


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Lines of the block, here and in coroutines that it starts, are about ``fields``."""
    before = _ABOUT.set({**_ABOUT.get(), **fields})
    try:
        yield
    finally:
        _ABOUT.reset(before)


def _fields(record: logging.LogRecord, known: Mapping[str, Any]) -> dict[str, Any]:
    found = {**known, **_ABOUT.get(), **{name: getattr(record, name) for name in FIELDS if hasattr(record, name)}}
    return {name: _plain(found[name]) for name in FIELDS if found.get(name) not in (None, "")}


def _plain(value: Any) -> str | int:
    return value if isinstance(value, int) else str(value)


def _uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    _log.critical("%s", kind.__name__, exc_info=(kind, error, at))

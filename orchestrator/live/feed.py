"""A session's news: a short list of numbered events, and cursors into it.

Nothing is kept for a listener but where it is, so a slow one lags and costs nothing. What describes a state (a place in
the queue, a step of many) replaces the event before it of its kind; of the rest the last ``KEPT`` are there, and who
comes later than that gets the session's state instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEPT = 256


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session, at Unix time ``at``."""

    seq: int
    kind: str
    at: float
    facts: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        return {"seq": self.seq, "type": self.kind, "at": self.at, **self.facts}


class Feed:
    """The events of one session. Numbers rise by one from ``first``; to be used on one event loop."""

    def __init__(self, first: int) -> None:
        self.seq = first
        self.closed = False
        self.listeners = 0
        self._events: dict[int, Event] = {}
        self._standing: dict[str, int] = {}
        self._missed = first
        self._news = asyncio.Event()

    def tell(self, kind: str, at: float, standing: str = "", **facts: Any) -> None:
        """Add an event; ``standing`` names the state that it describes, whose earlier event it replaces."""
        if self.closed:
            return
        self.seq += 1
        if standing:
            self._events.pop(self._standing.get(standing, 0), None)
            self._standing[standing] = self.seq
        self._events[self.seq] = Event(self.seq, kind, at, facts)
        self.forget(KEPT)
        self._wake()

    def forget(self, but: int) -> None:
        """Keep no more than the last ``but`` events."""
        while len(self._events) > but:
            self._missed = next(iter(self._events))
            del self._events[self._missed]

    def close(self) -> None:
        """Nothing more happens to the session, or this process will not hear of it."""
        self.closed = True
        self._wake()

    def after(self, cursor: int) -> list[Event] | None:
        """What came after ``cursor``; None where some of it is gone, or the cursor is not of this feed."""
        if not self._missed <= cursor <= self.seq:
            return None
        return [event for seq, event in self._events.items() if seq > cursor]

    async def beyond(self, cursor: int) -> None:
        """Until there is something after ``cursor``, or never will be."""
        self.listeners += 1
        try:
            while self.seq <= cursor and not self.closed:
                await self._news.wait()
        finally:
            self.listeners -= 1

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

"""One session as the service knows it: what was accepted, how far it has come, its news. The registry changes it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.spec import Control, SessionSpec
from gamecraft_core.timeline.spans import place, span
from orchestrator.live.feed import Feed
from orchestrator.live.port import SETTLED, Status


@dataclass(slots=True, eq=False)
class Live:
    """A session.

    ``controls`` are all that were accepted; ``closed``: no more are. Players have chunks by their places in time, which
    are their numbers unless the end is made first: ``shown`` from the first on can be played, ``ready`` are those after
    a gap. ``decoding`` is what is known of a chunk's decode; ``fetching`` gets their bytes, ``missed`` are those whose
    bytes never came.
    ``staged`` are the keys of the durable ones, ``found`` those of an earlier start, fit or not. ``leaving``: it was
    called off for want of controls, and the engine has not yet let go of it; ``gone`` is set when it has. ``turn`` puts
    what callers ask of it in order. ``key`` is the digest of what its caller would repeat the request with,
    ``traceparent`` the request's.
    """

    spec: SessionSpec
    created: float
    feed: Feed
    controls: list[Control] = field(default_factory=list)
    closed: bool = False
    key: str = ""
    traceparent: str = ""
    status: Status = "queued"
    position: int | None = None
    leaving: bool = False
    shown: int = 0
    staged: dict[int, str] = field(default_factory=dict)
    found: tuple[str, ...] = ()
    ready: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)
    decoding: dict[int, dict[str, Any]] = field(default_factory=dict)
    fetching: set[asyncio.Task[None]] = field(default_factory=set)
    init: bytes = b""
    error: FramelaneError | None = None
    expires: asyncio.TimerHandle | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def session_id(self) -> str:
        return self.spec.session_id

    @property
    def settled(self) -> bool:
        return self.status in SETTLED

    @property
    def in_engine(self) -> bool:
        return self.status in ("queued", "running")

    @property
    def waits_for_controls(self) -> bool:
        """Everything that was asked for is done and durable, and more may be asked for."""
        return self.status == "running" and not self.closed and len(self.staged) == len(self.controls)

    def place(self, index: int) -> int:
        """Of chunk ``index`` the place in time; and of a place the chunk that is there."""
        return place(self.spec.layout, len(self.controls), index)

    def frames(self, index: int) -> int:
        """How many frames chunk ``index`` settles."""
        start, end = span(self.spec.layout, self.spec.chunk_frames, len(self.controls), index)
        return end - start

    def have(self, count: int, shown: int | None = None) -> None:
        """The first ``count`` chunks are durable: of these those can be played that no gap precedes.

        No more than ``shown``, where that many were.
        """
        places = {self.place(index) for index in range(count)}
        reached = next(place for place in range(count + 1) if place not in places)
        self.shown = reached if shown is None else min(shown, reached)
        self.ready = {place for place in places if place > reached}

    def keys(self) -> tuple[str, ...]:
        """Of all chunks that may be durable, in order."""
        return tuple(sorted({*self.found, *self.staged.values()}))

    def describe(self) -> dict[str, Any]:
        """As callers see it."""
        spec = self.spec
        failure = self.error and {
            "field": self.error.field, "reason": self.error.message, "remedy": self.error.remedy
        }  # fmt: skip
        return {
            "id": spec.session_id,
            "status": self.status,
            "position": self.position,
            "played": spec.open,
            "open": spec.open and not self.closed,
            "created_at": self.created,
            "preset": spec.preset,
            "prompt": spec.prompt,
            "seed": spec.seed,
            "steps": spec.steps,
            "height": spec.height,
            "width": spec.width,
            "fps": spec.fps,
            "chunk_frames": spec.chunk_frames,
            "layout": spec.layout,
            "frames": sum(map(self.frames, range(len(self.controls)))),
            "chunks": {"asked": len(self.controls), "shown": self.shown, "durable": len(self.staged)},
            "error": failure,
        }

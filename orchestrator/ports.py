"""The doors of the orchestrator: what a lane and a listener must offer. Ray's side of them is in ``actors``."""

from __future__ import annotations

from typing import Any, Protocol

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import Order, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec

#: An opaque handle to a payload that stays where it was made. Only lanes open it.
Ref = Any


class Lane(Protocol):
    """One schedulable executor of a stage.

    ``preset`` None serves every preset. ``depth`` is the number of orders it takes at once: with two, the next one is
    at hand when the first ends.
    """

    @property
    def name(self) -> str: ...
    @property
    def stage(self) -> Stage: ...
    @property
    def preset(self) -> str | None: ...
    @property
    def sp_degree(self) -> int: ...
    @property
    def depth(self) -> int: ...

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        """Carry out ``order``; raises a FramelaneError whose verdict says what becomes of the work."""
        ...


class Listener(Protocol):
    """Hears what happened, after the fact: metrics, timeline, progress. It must not block and cannot object."""

    def admitted(self, spec: SessionSpec, now: float) -> None: ...
    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None: ...
    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None: ...
    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None: ...

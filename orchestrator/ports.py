"""The doors of the orchestrator: what a lane and a listener must offer. Ray's side of them is in ``actors``."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, Protocol

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import Order, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec

#: An opaque handle to a payload that stays where it was made. Only lanes open it.
Ref = Any


class Offer(Protocol):
    """What a lane, or every lane of a kind, has to offer."""

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


class Lane(Offer, Protocol):
    """One schedulable executor of a stage.

    ``preset`` None serves every preset. ``depth`` is the number of orders it takes at once: with two, the next one is
    at hand when the first ends. ``speed`` is a hint, orders a second against other lanes of the stage, by which what
    has a deadline chooses; None is the lane's sequence-parallel degree.
    """

    @property
    def speed(self) -> float | None: ...

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        """Carry out ``order``; raises a FramelaneError whose verdict says what becomes of the work."""
        ...


class Keeper(Protocol):
    """Replaces lanes that were lost."""

    async def rebuild(self, lane: Lane) -> Lane:
        """A warm lane in the place of ``lane``, with its name; what is left of the old one is gone first.

        Raises UsageError where it can never start (its files are wrong), any other FramelaneError where a later try may
        succeed.
        """
        ...


class LaneKind(Offer, Protocol):
    """Lanes that offer the same, of which there may be from ``least`` to ``most``."""

    @property
    def least(self) -> int: ...
    @property
    def most(self) -> int: ...


class Yard(Protocol):
    """Where further lanes of a run come from, and where lanes go in the end."""

    @property
    def kinds(self) -> Sequence[LaneKind]: ...

    async def another(self, kind: str) -> Lane:
        """A warm lane of ``kind``, new to the run, once there is room for it. Cancelled, it leaves nothing behind.

        Raises UsageError where none can ever start, any other FramelaneError where a later try may succeed.
        """
        ...

    async def give_back(self, lane: Lane) -> None:
        """``lane`` has left: end its processes, wait for that, and give back its place."""
        ...

    async def leaving(self) -> Set[str]:
        """Names of lanes that have a process on a node that is about to go."""
        ...

    def first_to_go(self, lanes: Sequence[Lane]) -> Lane:
        """The one of ``lanes`` that is given up most easily."""
        ...


class Listener:
    """Hears what happened, after the fact: metrics, timeline, progress. It must not block and cannot object.

    A listener overrides what it wants to hear.
    """

    def admitted(self, spec: SessionSpec, now: float) -> None:
        """``spec`` was taken in."""

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        """A lane answered; ``spec`` is None for work that belongs to no session."""

    def asked(self, spec: SessionSpec, chunks: int, now: float) -> None:
        """``spec``, which is open and under way, is to go on by so many chunks."""

    def denoised(self, spec: SessionSpec, index: int, latents: Ref, now: float) -> None:
        """Chunk ``index`` can be decoded: ``latents`` are its new ones."""

    def decoded(self, spec: SessionSpec, index: int, fragment: Ref, now: float) -> None:
        """Chunk ``index`` can be shown: ``fragment`` is its part of the video. It is not durable yet."""

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        """``spec`` is committed, or failed with ``error``."""

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        """``lane`` takes no orders any more."""

    def lane_back(self, lane: Lane, now: float) -> None:
        """``lane`` has taken the place of a lost one of its name."""

    def lane_given_up(self, lane: Lane, now: float) -> None:
        """Nobody tries to replace ``lane`` any more."""

    def lane_joined(self, lane: Lane, now: float) -> None:
        """``lane`` is new and takes orders."""

    def lane_leaving(self, lane: Lane, now: float) -> None:
        """A node of ``lane`` is about to go: it takes no more orders."""

    def lane_left(self, lane: Lane, now: float) -> None:
        """``lane`` was asked to go, and has finished or lost what it held."""

    def store_away(self, stage: Stage, error: FramelaneError, pause: float, now: float) -> None:
        """An order of ``stage`` found the store absent; it is tried again after ``pause`` seconds."""

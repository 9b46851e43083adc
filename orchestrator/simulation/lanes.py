"""Simulated lanes: what they are, how long they take, and how they fail. They carry out nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from gamecraft_core.base.messages import Order, Receipt, Stage
from orchestrator.ports import Ref
from orchestrator.simulation.times import Times
from orchestrator.tasks import Kind, Task


@dataclass(frozen=True, slots=True, eq=False)
class SimLane:
    """A serial lane. ``seconds`` are those of every order, or by kind of task; ``speed`` is the scheduler's hint.

    It is lost at each of ``lost_at`` and, where ``between_losses`` is given, at random; ``rebuilt_after`` a loss it is
    back, or never.
    """

    name: str
    stage: Stage
    seconds: Times | Mapping[Kind, Times]
    preset: str | None = None
    sp_degree: int = 1
    depth: int = 2
    speed: float | None = None
    lost_at: tuple[float, ...] = ()
    between_losses: Times | None = None
    rebuilt_after: Times | None = None

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        raise AssertionError("a simulation never runs its lanes")


class Server:
    """A lane at work: what it runs, what waits behind that, how often it was lost; ``draw`` gives seconds by kind."""

    __slots__ = ("draw", "lane", "life", "queue", "running", "started")

    def __init__(self, lane: SimLane) -> None:
        self.lane = lane
        self.running: Task | None = None
        self.started = 0.0
        self.queue: deque[Task] = deque()
        self.life = 0
        seconds = lane.seconds
        by_kind = seconds if isinstance(seconds, Mapping) else dict.fromkeys(get_args(Kind), seconds)
        self.draw = {kind: times.draw for kind, times in by_kind.items()}

    def stop(self) -> list[Task]:
        """It is lost, with what it held; what was under way in it never ends."""
        held = [*([self.running] if self.running else []), *self.queue]
        self.running = None
        self.queue.clear()
        self.life += 1
        return held

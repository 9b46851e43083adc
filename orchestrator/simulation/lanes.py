"""Simulated lanes: what they are, how long they take, and how they fail. They carry out nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import get_args

from gamecraft_core.base.messages import Order, Receipt, Stage
from orchestrator.ports import Ref
from orchestrator.simulation.cards import Turn
from orchestrator.simulation.times import Times
from orchestrator.tasks import Kind, Task


@dataclass(frozen=True, slots=True, eq=False)
class SimLane:
    """One order at a time or, not ``serial``, all that it holds at once; ``speed`` is the scheduler's hint.

    ``seconds`` are those of every order, or by kind of task; ``first``, of a session's first chunk, where they differ.
    Those who work on one of ``cards`` share it (see ``cards.py``). An order goes on for ``after`` without cards, and
    the lane's next one begins meanwhile. A lane is lost at each of ``lost_at`` and, where ``between_losses`` is given,
    at random; ``rebuilt_after`` a loss it is back, or never.
    """

    name: str
    stage: Stage
    seconds: Times | Mapping[Kind, Times]
    first: Times | None = None
    after: Times | None = None
    cards: tuple[int, ...] = ()
    serial: bool = True
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
    """A lane at work: what it runs, what waits behind that, how often it was lost; ``draw`` gives seconds by kind.

    A ``plain`` one does nothing but that. In others ``turns`` are on their cards, and ``beside`` are orders that run
    but do not keep the next one from beginning.
    """

    __slots__ = ("beside", "draw", "lane", "life", "plain", "queue", "running", "turns")

    def __init__(self, lane: SimLane) -> None:
        self.lane = lane
        self.running: Task | None = None
        self.queue: deque[Task] = deque()
        self.beside: list[Task] = []
        self.turns: list[Turn] = []
        self.life = 0
        self.plain = lane.serial and not lane.cards and lane.first is None and lane.after is None
        seconds = lane.seconds
        by_kind = seconds if isinstance(seconds, Mapping) else dict.fromkeys(get_args(Kind), seconds)
        self.draw = {kind: times.draw for kind, times in by_kind.items()}

    def seconds(self, task: Task, chance: Random) -> float:
        """What ``task`` takes with the lane's cards to itself."""
        first = self.lane.first
        if first is not None and not task.index:
            return first.draw(chance)
        return self.draw[task.kind](chance)

    def stop(self) -> list[Task]:
        """It is lost, with what it held; what was under way in it never ends."""
        held = [*([self.running] if self.running else []), *self.beside, *self.queue]
        self.running = None
        for each in (self.queue, self.beside, self.turns):
            each.clear()
        self.life += 1
        return held

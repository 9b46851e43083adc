"""Lanes that join and leave a simulation as its work wants: ``demand``, as in a run, on the simulation's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from gamecraft_core.base.messages import Receipt
from gamecraft_core.base.spec import SessionSpec
from orchestrator.demand import Demand, Load, Pace
from orchestrator.pools import offer
from orchestrator.ports import Listener
from orchestrator.scheduler import Scheduler
from orchestrator.simulation.lanes import SimLane
from orchestrator.simulation.times import Times


@dataclass(frozen=True, slots=True)
class Growth:
    """Lanes ``like`` one of those at the start, whose number is the least, may become ``most``.

    ``start_up`` is the time from when a lane is wanted until it serves: its node, its process, its weights.
    """

    like: SimLane
    most: int
    start_up: Times


class Growing(Protocol):
    """What a simulation offers to those who change its lanes."""

    scheduler: Scheduler
    now: float
    chance: Random
    ailing: list[SimLane]

    @property
    def goes_on(self) -> bool:
        """Something else is still to happen."""
        ...

    def at(self, when: float, happen: Callable[..., None], *about: object) -> None: ...
    def join(self, lane: SimLane, at: float) -> None: ...
    def drain(self, name: str, at: float) -> None: ...


class _Supply:
    """One kind: what is wanted of it, its lanes on their way, and how many have been started."""

    def __init__(self, growth: Growth, least: int, pace: Pace) -> None:
        self.growth = growth
        like = growth.like
        self.demand = Demand(least, growth.most, pace, 1 if like.serial else like.depth)
        self.coming: list[SimLane] = []
        self.started = 0


class Scaling(Listener):
    """Asks for each kind every ``pace.look_seconds``, for as long as anything else happens."""

    def __init__(self, simulation: Growing, growths: Iterable[Growth], pace: Pace) -> None:
        self._simulation = simulation
        self._pace = pace
        self._supply_of: dict[str, _Supply] = {}
        self._supplies = [_Supply(each, len(self._serving(each.like)), pace) for each in growths]
        simulation.at(simulation.now, self._look)

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        if supply := self._supply_of.get(receipt.lane):
            supply.demand.took(receipt.seconds)

    def _look(self) -> None:
        for supply in self._supplies:
            self._adjust(supply)
        if self._simulation.goes_on:
            self._simulation.at(self._simulation.now + self._pace.look_seconds, self._look)

    def _adjust(self, supply: _Supply) -> None:
        simulation, like = self._simulation, supply.growth.like
        serving = self._serving(like)
        self._supply_of |= dict.fromkeys((name for name, _ in serving), supply)
        work = simulation.scheduler.work(offer(like))
        coming = len(supply.coming) + sum(offer(lane) == offer(like) for lane in simulation.ailing)
        change = supply.demand.change(Load(work, len(serving), coming), simulation.now)
        if change > 0:
            supply.started += 1
            lane = replace(like, name=f"{like.name}+{supply.started}")
            supply.coming.append(lane)
            simulation.at(simulation.now + supply.growth.start_up.draw(simulation.chance), self._ready, supply, lane)
        elif change < 0 and supply.coming:
            supply.coming.pop()
        elif change < 0 and serving:
            name, _ = min(reversed(serving), key=lambda named: named[1])
            simulation.drain(name, simulation.now)

    def _ready(self, supply: _Supply, lane: SimLane) -> None:
        if lane in supply.coming:
            supply.coming.remove(lane)
            self._simulation.join(lane, self._simulation.now)

    def _serving(self, like: SimLane) -> list[tuple[str, int]]:
        """Names of the lanes of a kind that take orders, in the order of their coming, and what each holds."""
        slots = [slot for slot in self._simulation.scheduler.fleet if not slot.draining]
        return [(slot.lane.name, len(slot.tasks)) for slot in slots if offer(slot.lane) == offer(like)]

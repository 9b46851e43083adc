"""Lanes that come and go by themselves: in the simulator, and beside the engine with a yard of fake lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import pytest

from gamecraft_core.base.errors import FramelaneError, LaneLost, NoRoom, UsageError
from gamecraft_core.base.messages import DenoiseOrder, Order, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.board import Board
from orchestrator.demand import Pace
from orchestrator.elastic import Elastic
from orchestrator.engine import Engine
from orchestrator.limits import Limits
from orchestrator.ports import Lane
from orchestrator.recovery import RunAborted
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from orchestrator.simulation.arrivals import at_once
from orchestrator.simulation.scaling import Growth
from orchestrator.simulation.simulator import Simulation
from orchestrator.simulation.times import Constant, Uniform
from tests.fakes import virtual_time
from tests.fakes.lanes import FakeLane
from tests.fakes.sessions import provenance, session
from tests.fakes.world import Ledger, usual
from tests.sim.test_simulation import fleet

PACE = Pace(target_wait_seconds=10.0, patience_seconds=3.0, idle_seconds=30.0, look_seconds=1.0)
LIMITS = Limits(max_rebuilds=2, backoff_seconds=1.0)


def sessions(count: int, chunks: int = 4) -> list[SessionSpec]:
    return [session(f"s{n}", chunks, row=n + 1) for n in range(count)]


def grown(seed: int, most: int) -> tuple[Any, list[tuple[str, str]]]:
    """Ten sessions at once, and long after them a single one, on a fleet that may have ``most`` groups."""
    ledger, lanes = Ledger(), fleet(Uniform(3.0, 5.0), Constant(1.0))
    simulation = Simulation(lanes, Limits(), seed=seed, listeners=[ledger])
    group = next(lane for lane in lanes if lane.stage == "denoise")
    simulation.grow([Growth(group, most, Uniform(15.0, 25.0))], PACE)
    simulation.arrive([*at_once(sessions(10)), (400.0, session("late", 20))])
    outcome = simulation.run()
    assert (outcome.committed, outcome.unfinished) == (11, 0)
    return (outcome, [(r.lane, r.started) for r in ledger.receipts]), ledger.moved


def test_a_simulated_fleet_grows_and_shrinks_and_repeats_itself() -> None:
    told, moved = grown(1, 4)
    assert grown(1, 4) == (told, moved)
    assert grown(2, 4)[0] != told
    assert [how for how, _ in moved] == ["joined"] * 2 + ["left"] * 2
    assert {name for how, name in moved if how == "left"} < {"denoise-0", *(name for _, name in moved)}
    fixed, nothing = grown(1, 1)
    assert nothing == []
    first = [
        max(at for lane, at in receipts if lane.startswith("denoise") and at < 400) for _, receipts in (told, fixed)
    ]
    assert first[0] < 0.6 * first[1], "start-up times included"


def test_a_simulated_lane_that_is_drained_below_the_least_is_replaced_at_once() -> None:
    ledger, lanes = Ledger(), fleet(Constant(4.0), Constant(1.0))
    simulation = Simulation(lanes, Limits(), listeners=[ledger])
    simulation.grow([Growth(lanes[2], 1, Constant(20.0))], PACE)
    simulation.arrive(at_once(sessions(2)))
    simulation.drain("denoise-0", at=6.0)
    assert simulation.run().committed == 2
    assert ledger.moved == [("left", "denoise-0"), ("joined", "denoise-0+1")]
    assert min(r.started for r in ledger.receipts if r.lane == "denoise-0+1") == 6.0 + 20.0


@dataclass(frozen=True)
class FakeKind:
    """Groups, from ``least`` to ``most``."""

    least: int = 1
    most: int = 1
    name: str = "groups"
    stage: Stage = "denoise"
    preset: str | None = None
    sp_degree: int = 1
    depth: int = 2


@dataclass
class FakeYard:
    """Lanes that take ``start_up`` seconds to come; ``fate`` says what the next attempts end with instead."""

    kinds: Sequence[FakeKind]
    start_up: float = 20.0
    fate: Iterator[FramelaneError | None] = field(default_factory=lambda: iter(()))
    going: set[str] = field(default_factory=set)
    started: list[float] = field(default_factory=list)
    withdrawn: int = 0
    back: list[str] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    async def another(self, kind: str) -> FakeLane:
        self.started.append(asyncio.get_running_loop().time())
        name = f"more-{len(self.started)}"
        try:
            await asyncio.sleep(self.start_up)
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise
        if (error := next(self.fate, None)) is not None:
            raise error
        return FakeLane(name, "denoise", usual)

    async def give_back(self, lane: Any) -> None:
        self.back.append(lane.name)
        self.held.append(lane.held)

    async def leaving(self) -> Set[str]:
        return set(self.going)

    def first_to_go(self, lanes: Sequence[Lane]) -> Lane:
        return lanes[-1]


class Grown:
    """An engine with an elastic fleet, in virtual time."""

    def __init__(self, yard: FakeYard, behaviour: Callable[[Order], Any] = usual, keeper: Any = None) -> None:
        stages: tuple[Stage, ...] = ("text", "encode", "denoise", "decode", "write")
        self.lanes = [FakeLane(f"{stage}-0", stage, behaviour) for stage in stages]
        self.yard, self.keeper, self.ledger = yard, keeper, Ledger()

    def run(self, rows: Sequence[SessionSpec]) -> bool:
        async def main() -> bool:
            clock = asyncio.get_running_loop().time
            board = Board(LIMITS, provenance)
            scheduler = Scheduler(LIMITS, board.census)
            elastic = Elastic(self.yard, scheduler, LIMITS, PACE, clock)
            shards = ShardBook(len(rows), 4)
            self.engine = Engine(
                self.lanes, board, scheduler, LIMITS, shards, [self.ledger, elastic], clock, keeper=self.keeper
            )
            async with elastic.beside(self.engine):
                return await self.engine.run(iter(rows))

        return virtual_time.run(main())


KINDS = tuple(FakeKind(name=stage, stage=stage) for stage in ("text", "encode", "decode", "write"))


def yard(most: int = 1, **options: Any) -> FakeYard:
    return FakeYard((*KINDS, FakeKind(most=most)), **options)


def at_chunk(index: int, what: Callable[[], Any]) -> Callable[[Order], Any]:
    """The usual behaviour, and ``what`` when chunk ``index`` of session s0 is denoised."""

    def behaviour(order: Order) -> Any:
        if isinstance(order, DenoiseOrder) and (order.session_id, order.index) == ("s0", index):
            return what() or usual(order)
        return usual(order)

    return behaviour


def test_demand_brings_lanes_which_leave_when_it_is_gone() -> None:
    world = Grown(yard(most=3))
    assert world.run([*sessions(8), session("long", 60, row=9)])
    assert set(world.ledger.done.values()) == {None}
    assert [how for how, _ in world.ledger.moved] == ["joined", "joined", "left", "left"]
    assert world.yard.back == [name for how, name in world.ledger.moved if how == "left"]
    assert world.yard.held == [0, 0], "given back empty"
    assert world.ledger.noticed == [], "no node was about to go"
    assert world.yard.started[1] - world.yard.started[0] == PACE.look_seconds


def test_the_only_lane_of_a_stage_drains_and_the_run_waits_for_the_next() -> None:
    world = Grown(yard(), at_chunk(1, lambda: world.yard.going.add("denoise-0")))
    assert world.run(sessions(3))
    assert set(world.ledger.done.values()) == {None}
    assert world.ledger.moved == [("left", "denoise-0"), ("joined", "more-1")]
    assert world.ledger.noticed == ["denoise-0"]
    assert (world.ledger.lost, world.yard.back, world.yard.held) == ([], ["denoise-0"], [0])
    assert len([r for r in world.ledger.receipts if r.stage == "denoise"]) == 12, "no order twice"


def test_when_nothing_comes_the_run_ends_after_its_budget() -> None:
    fate = iter([LaneLost("broken")] * 9)
    world = Grown(yard(fate=fate), at_chunk(1, lambda: world.yard.going.add("denoise-0")))
    with pytest.raises(RunAborted, match="no lane is left for denoise"):
        world.run(sessions(2))
    assert len(world.yard.started) == LIMITS.max_rebuilds + 1


def test_a_lane_that_finds_no_room_is_no_failure_of_the_run() -> None:
    world = Grown(yard(most=2, start_up=5.0, fate=iter([NoRoom("full")] * 99)))
    assert world.run(sessions(8))
    assert set(world.ledger.done.values()) == {None}
    assert world.ledger.moved == []
    assert len(world.yard.started) > 2 * LIMITS.max_rebuilds, "it has no budget while others work"


def test_a_lane_that_waits_for_room_is_withdrawn_when_nobody_needs_it() -> None:
    world = Grown(yard(most=2, start_up=500.0))
    assert world.run([*sessions(5, 5), session("long", 60, row=9)])
    assert set(world.ledger.done.values()) == {None}
    assert world.ledger.moved == []
    assert (len(world.yard.started), world.yard.withdrawn) == (1, 1)


def test_what_can_never_start_is_not_tried_again() -> None:
    world = Grown(yard(most=2, start_up=1.0, fate=iter([UsageError("no weights")])))
    assert world.run(sessions(8))
    assert len(world.yard.started) == 1


def test_a_lane_that_is_being_replaced_counts_and_is_called_off_when_nobody_needs_it() -> None:
    """A joined lane dies; its successor never comes; the tail of the run does not need it."""

    class Never:
        """A keeper whose cluster has no room."""

        async def rebuild(self, lane: Lane) -> Lane:
            await asyncio.Event().wait()
            raise AssertionError

    died: list[LaneLost] = []

    def dies() -> LaneLost | None:
        if ("joined", "more-1") in world.ledger.moved and not died:
            died.append(LaneLost("preempted"))
            return died[0]
        return None

    world = Grown(yard(most=2), keeper=Never())
    another = world.yard.another

    async def mortal(kind: str) -> FakeLane:
        lane = await another(kind)
        lane.behaviour = lambda order: dies() or usual(order)
        return lane

    world.yard.another = mortal  # type: ignore[method-assign]
    # without other timers the virtual clock would stand still while the keeper waits
    assert world.run([*sessions(8), session("long", 60, row=9)])
    assert set(world.ledger.done.values()) == {None}
    assert world.ledger.lost == ["more-1"]
    assert world.ledger.moved == [("joined", "more-1"), ("left", "more-1")]
    assert len(world.yard.started) == 1, "nothing else was started in its place"
    assert world.yard.back == ["more-1"]


def test_a_lane_that_is_given_up_is_not_tried_again_under_another_name() -> None:
    failures = iter([LaneLost("died")] * 9)
    world = Grown(yard(), at_chunk(1, lambda: next(failures, None)))
    with pytest.raises(RunAborted, match="no lane is left"):
        world.run(sessions(1))
    assert world.ledger.given_up == ["denoise-0"]

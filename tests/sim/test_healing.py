"""What goes wrong and is mended: lost lanes, an absent store, a stop; and anything, in any order."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.errors import (
    BadInput,
    FramelaneError,
    LaneLost,
    OutOfMemory,
    StateLost,
    StoreUnavailable,
    UsageError,
)
from gamecraft_core.base.messages import (
    CommitOrder,
    DecodeOrder,
    DenoiseOrder,
    EncodeOrder,
    Order,
    PublishOrder,
    RestoreOrder,
    TextOrder,
    WriteOrder,
)
from orchestrator.limits import Limits
from orchestrator.ports import Lane
from orchestrator.recovery import RunAborted
from tests.fakes.lanes import FakeLane, restored
from tests.fakes.sessions import session
from tests.fakes.world import World, failing, usual


class FakeKeeper:
    """Rebuilds lanes in ``seconds``; ``failures`` come first."""

    def __init__(self, world: World, seconds: float = 2.0, failures: list[FramelaneError] | None = None) -> None:
        self.world, self.seconds, self.failures = world, seconds, failures or []
        self.asked: list[tuple[str, float]] = []

    async def rebuild(self, lane: Lane) -> Lane:
        import asyncio

        assert isinstance(lane, FakeLane)
        self.asked.append((lane.name, asyncio.get_running_loop().time()))
        await asyncio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)
        new = FakeLane(lane.name, lane.stage, lane.behaviour, lane.preset, lane.sp_degree, lane.depth)
        new.restores = lane.restores
        self.world.lanes.append(new)
        return new


ROWS = [session(f"s{number}", chunks=3, row=number + 1) for number in range(4)]
ALL_WELL = {row.session_id: None for row in ROWS}


@pytest.mark.parametrize(
    "kind", ["TextOrder", "EncodeOrder", "DenoiseOrder", "DecodeOrder", "WriteOrder", "CommitOrder"]
)
def test_the_only_lane_of_a_stage_is_replaced_and_nothing_is_lost(kind: str) -> None:
    world = World(failing({kind: 2}, LaneLost))
    keeper = FakeKeeper(world)
    assert world.run(ROWS, keeper=keeper)
    assert world.ledger.done == ALL_WELL
    assert len(world.ledger.lost) == len(world.ledger.back) == len(keeper.asked) >= 1
    done = Counter((o.session_id, o.index) for o, _, _ in world.logged(DecodeOrder))
    assert set(done.values()) == {1}, "no chunk is decoded twice"


def test_other_lanes_go_on_while_one_is_rebuilt() -> None:
    world = World(failing({"DenoiseOrder": 1}, LaneLost), groups=(1, 1))
    assert world.run(ROWS, keeper=FakeKeeper(world, seconds=1000.0))
    assert world.ledger.done == ALL_WELL
    assert world.makespan < 100, "the run does not wait for a lane that it does not need"


def test_what_waited_behind_the_order_that_lost_its_lane_is_not_charged() -> None:
    """Two orders are on a lane; one session kills it each time, the other is only ever second."""

    def behaviour(order: Order) -> float | FramelaneError:
        return LaneLost("killed") if isinstance(order, DenoiseOrder) and order.session_id == "evil" else usual(order)

    world = World(behaviour)
    rows = [session("evil", row=1), session("good", row=2)]
    assert world.run(rows, Limits(max_attempts=5), keeper=FakeKeeper(world))
    assert world.ledger.done["good"] is None
    assert "5 lanes were lost" in str(world.ledger.done["evil"])


def test_out_of_memory_has_a_budget_of_its_own() -> None:
    def behaviour(order: Order) -> float | FramelaneError:
        return OutOfMemory("CUDA") if isinstance(order, DenoiseOrder) and order.session_id == "big" else usual(order)

    world = World(behaviour)
    assert world.run([session("big", row=1), session("good", row=2)], keeper=FakeKeeper(world))
    assert "2 lanes ran out of memory" in str(world.ledger.done["big"])
    assert world.ledger.done["good"] is None


def test_a_lane_that_does_not_start_is_tried_again_later_and_later() -> None:
    world = World(failing({"DenoiseOrder": 1}, LaneLost))
    keeper = FakeKeeper(world, 0.0, [LaneLost("no room")] * 4)
    assert world.run(ROWS, Limits(backoff_seconds=1.0, max_backoff_seconds=4.0), keeper=keeper)
    times = [at for _, at in keeper.asked]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [1.0, 2.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("failures", "tries"), [([UsageError("no such file")], 1), ([LaneLost("no room")] * 99, 3)], ids=["never", "budget"]
)
def test_a_lane_that_cannot_come_back_is_given_up(failures: list[FramelaneError], tries: int) -> None:
    world = World(failing({"DenoiseOrder": 1}, LaneLost))
    keeper = FakeKeeper(world, failures=failures)
    with pytest.raises(RunAborted, match="no lane is left for denoise"):
        world.run(ROWS, Limits(max_rebuilds=3), keeper=keeper)
    assert len(keeper.asked) == tries
    assert world.ledger.given_up == ["denoise-0"]


def test_a_lane_that_does_well_starts_with_a_clean_slate() -> None:
    world = World()
    count = Counter[str]()

    def behaviour(order: Order) -> float | FramelaneError:
        count[type(order).__name__] += 1
        every_other = isinstance(order, DenoiseOrder) and count["DenoiseOrder"] % 2 == 1
        return LaneLost("flaps") if every_other else usual(order)

    world = World(behaviour)
    assert world.run(ROWS, Limits(max_rebuilds=2, max_attempts=50), keeper=FakeKeeper(world))
    assert world.ledger.done == ALL_WELL
    assert len(world.ledger.back) > 2


@pytest.mark.parametrize("kind", ["EncodeOrder", "WriteOrder", "CommitOrder", "PublishOrder"])
def test_an_absent_store_is_waited_for(kind: str) -> None:
    world = World(failing({kind: 9}, StoreUnavailable))
    assert world.run(ROWS)
    assert world.ledger.done == ALL_WELL
    assert len(world.ledger.away) == 9
    assert world.ledger.lost == []


def test_while_the_store_is_away_memory_stays_bounded() -> None:
    """Nothing can be stored for an hour: what is decoded and undecoded stops at its limits, then all is stored."""
    world = World(groups=(1, 1, 1), decoders=2)
    peaks: Counter[str] = Counter()

    def behaviour(order: Order) -> float | FramelaneError:
        scheduler = world.engine.scheduler
        peaks["unwritten"] = max(peaks["unwritten"], scheduler.credits.unwritten.total)
        peaks["undecoded"] = max(peaks["undecoded"], scheduler.credits.undecoded.total)
        if isinstance(order, (WriteOrder, CommitOrder)) and world.now() < 3600:
            return StoreUnavailable("refused")
        return usual(order)

    for lane in world.lanes:
        lane.behaviour = behaviour
    rows = [session(f"s{number}", chunks=4, row=number + 1) for number in range(60)]
    assert world.run(rows, Limits(max_unwritten=7, max_undecoded=5, max_backoff_seconds=30))
    assert set(world.ledger.done.values()) == {None}
    assert peaks["unwritten"] <= 7
    assert peaks["undecoded"] <= 5
    assert world.makespan < 3600 + 40 + 60 * 4 * 4.0, "and the lanes were not idle before they had to be"


def test_one_sessions_unreachable_input_fails_alone_in_the_end() -> None:
    def behaviour(order: Order) -> float | FramelaneError:
        away = isinstance(order, EncodeOrder) and order.session_id == "s1"
        return StoreUnavailable("timeout") if away else usual(order)

    world = World(behaviour)
    assert world.run(ROWS, Limits(max_outage_seconds=60))
    assert {name for name, error in world.ledger.done.items() if error} == {"s1"}


def test_a_stop_makes_what_is_denoised_durable() -> None:
    def behaviour(order: Order) -> float:
        if isinstance(order, DenoiseOrder) and order.index == 1:
            world.engine.stop()
        return usual(order)

    world = World(behaviour)
    assert world.run([session("a", chunks=5)]) is False
    assert [o.index for o, _, _ in world.logged(WriteOrder)] == [0, 1]
    assert max(o.index for o, _, _ in world.logged(DenoiseOrder)) == 1


def test_a_stop_commits_what_is_whole() -> None:
    def behaviour(order: Order) -> float:
        if isinstance(order, DenoiseOrder) and order.session_id == "short":
            world.engine.stop()
        return usual(order)

    world = World(behaviour)
    rows = [session("short", chunks=1, row=1), session("long", chunks=9, row=2)]
    assert world.run(rows, Limits(max_sessions=1)) is False
    assert world.ledger.done == {"short": None}


def test_a_stop_does_not_outlast_the_grace_period() -> None:
    def behaviour(order: Order) -> float | FramelaneError:
        if isinstance(order, DecodeOrder):
            world.engine.stop()
        return StoreUnavailable("refused") if isinstance(order, WriteOrder) else usual(order)

    world = World(behaviour)
    assert world.run([session("a", chunks=3)], Limits(grace_seconds=20)) is False
    stopped_at = 0.75 + 4.0
    assert world.makespan == stopped_at + 20


#: Orders whose payloads can be made again: a shard's are in the store, a failure has none.
SESSIONS = (TextOrder, EncodeOrder, DenoiseOrder, DecodeOrder, WriteOrder, CommitOrder, RestoreOrder)

FAULTS = [LaneLost, OutOfMemory, StoreUnavailable, StateLost, BadInput]


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_whatever_fails_every_session_ends_once_and_chunks_stay_in_order(
    data: st.DataObject, lengths: list[int]
) -> None:
    budget = [data.draw(st.integers(0, 30))]

    def behaviour(order: Order) -> float | FramelaneError:
        if budget[0] > 0 and data.draw(st.integers(0, 4)) == 0:
            budget[0] -= 1
            kind = data.draw(st.sampled_from(FAULTS))
            fits = {BadInput: (TextOrder, EncodeOrder), StateLost: SESSIONS}.get(kind, object)
            if isinstance(order, fits):
                return kind("drawn")
        return usual(order)

    world = World(behaviour, groups=(1, 2), decoders=2)
    for lane in world.lanes:
        lane.restores = restored
    rows = [session(f"s{number}", chunks=length, row=number + 1) for number, length in enumerate(lengths)]
    limits = Limits(max_sessions=3, max_unwritten=3, max_undecoded=4, max_rebuilds=99, max_rewinds=99)
    limits = limits.model_copy(update={"max_attempts": 99, "max_out_of_memory": 99})  # a shard that spends them aborts
    assert world.run(rows, limits, keeper=FakeKeeper(world))
    assert world.ledger.done.keys() == {row.session_id for row in rows}
    commits = Counter(o.session_id for o, _, _ in world.logged(CommitOrder))
    for row in rows:
        if world.ledger.done[row.session_id] is None:
            assert commits[row.session_id] == 1
            (order,) = [o for o, _, _ in world.logged(CommitOrder) if o.session_id == row.session_id]
            assert [chunk.index for chunk in order.chunks] == list(range(row.num_chunks))
    assert world.board.census.payload_bytes == 0
    assert world.board.active == {}
    published = [o for o, _, _ in world.logged(PublishOrder)]
    assert len(published) == -(-len(rows) // 4)

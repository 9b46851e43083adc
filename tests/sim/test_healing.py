"""What goes wrong and is mended: lost lanes, lost payloads, an absent store, a stop, a start after a crash."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict
from typing import Any

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
    ChunkRecord,
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
from gamecraft_core.dataset import layout
from orchestrator.engine import RunAborted
from orchestrator.limits import Limits
from orchestrator.ports import Lane
from tests.fakes.lanes import FakeLane
from tests.fakes.sessions import session
from tests.fakes.world import World, usual


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


def failing(times: dict[str, int], error: type[FramelaneError]) -> Any:
    """A behaviour under which the first orders of a kind end with ``error``."""
    left = Counter(times)

    def behaviour(order: Order) -> float | FramelaneError:
        kind = type(order).__name__
        if left[kind] > 0:
            left[kind] -= 1
            return error(f"{kind} met a fault")
        return usual(order)

    return behaviour


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


@pytest.mark.parametrize("kind", ["DenoiseOrder", "DecodeOrder", "WriteOrder", "CommitOrder"])
def test_a_session_whose_payload_is_gone_goes_back_to_what_is_durable(kind: str) -> None:
    world = World(failing({kind: 1}, StateLost))
    for lane in world.lanes:
        lane.restores = restored
    assert world.run(ROWS)
    assert world.ledger.done == ALL_WELL
    assert world.board.payload_bytes == 0
    for order, _, _ in world.logged(CommitOrder):
        assert [chunk.index for chunk in order.chunks] == [0, 1, 2]


def restored(order: RestoreOrder) -> list[dict[str, Any]]:
    """What a store that lost nothing answers: every chunk that was staged."""
    return [asdict(record_of(key)) for key in sorted(set(order.keys))]


def record_of(key: str) -> ChunkRecord:
    named = layout.parse_chunk_key(key)
    assert named is not None
    return ChunkRecord(
        index=named.chunk,
        start=named.chunk * 33,
        end=(named.chunk + 1) * 33,
        control={"action": "w", "speed": 0.2},
        seed=1,
        sp_degree=named.sp_degree,
        timings={},
        latents_uri=None,
        latents_sha256="0" * 64,
        staged_key=key,
        fragment_sha256="1" * 64,
    )


def test_a_published_rows_lost_payload_is_read_from_the_store() -> None:
    world = World(failing({"PublishOrder": 1}, StateLost))
    assert world.run(ROWS)
    (order, _, _) = world.logged(PublishOrder)[0]
    assert (order.stored, order.fresh) == (("s0", "s1", "s2", "s3"), ())


def test_a_session_that_loses_its_state_for_ever_is_set_aside() -> None:
    world = World(lambda order: StateLost("gone") if isinstance(order, DecodeOrder) else usual(order))
    assert world.run([session("s0", chunks=1)], Limits(max_rewinds=3))
    assert "again and again" in str(world.ledger.done["s0"])
    assert len(world.logged(DenoiseOrder)) == 4


def staged(name: str, count: int, degree: int = 1) -> tuple[str, ...]:
    return tuple(layout.chunk_key(name, index, degree, "1" * 64) for index in range(count))


def test_a_session_goes_on_after_its_durable_chunks() -> None:
    world = World(groups=(1, 2))
    for lane in world.lanes:
        lane.restores = restored
    rows = [session("old", chunks=4, row=1), session("new", chunks=2, row=2)]
    assert world.run(rows, staged={"old": staged("old", 3, degree=2)})
    denoised = [(o.session_id, o.index) for o, _, _ in world.logged(DenoiseOrder)]
    assert sorted(denoised) == [("new", 0), ("new", 1), ("old", 3)]
    assert not [o for o, _, _ in world.logged(EncodeOrder) if o.session_id == "old"]
    (order,) = [o for o, _, _ in world.logged(CommitOrder) if o.session_id == "old"]
    assert [chunk.sp_degree for chunk in order.chunks] == [2, 2, 2, 2], "at the degree of its first chunk"
    assert [chunk.staged_key for chunk in order.chunks] == [*staged("old", 3, degree=2), ""]
    (write,) = [o for o, _, _ in world.logged(WriteOrder) if o.session_id == "old"] or [None]
    assert write is None


def test_a_session_whose_durable_chunks_are_void_begins_again() -> None:
    world = World()
    assert world.run([session("old", chunks=2)], staged={"old": staged("old", 1)})
    assert len(world.logged(RestoreOrder)) == len(world.logged(EncodeOrder)) == 1
    assert [o.index for o, _, _ in world.logged(DenoiseOrder)] == [0, 1]


def test_every_write_names_the_latents_its_chunk_continued_from() -> None:
    world = World()
    assert world.run([session("a", chunks=3)])
    writes = [o for o, _, _ in world.logged(WriteOrder)]
    assert [o.history_sha256 for o in writes] == ["", "0" * 64]
    assert len({o.identity for o in writes}) == 1


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
    assert world.board.payload_bytes == 0
    assert world.board.active == {}
    published = [o for o, _, _ in world.logged(PublishOrder)]
    assert len(published) == -(-len(rows) // 4)

"""The engine on fake lanes under a virtual clock: exact makespans, order, limits, faults."""

from __future__ import annotations

import pytest

from gamecraft_core.base.errors import BadInput, FramelaneError, LaneLost, StoreUnavailable
from gamecraft_core.base.messages import (
    CommitOrder,
    DecodeOrder,
    DenoiseOrder,
    EncodeOrder,
    FailOrder,
    Order,
    PublishOrder,
    TextOrder,
)
from gamecraft_core.base.spec import SessionSpec
from orchestrator.engine import Settled
from orchestrator.limits import Limits
from orchestrator.recovery import RunAborted
from tests.fakes.sessions import session
from tests.fakes.world import World, usual


def test_one_session_of_three_chunks_takes_the_hand_computed_optimum() -> None:
    world = World()
    assert world.run([session("a", chunks=3)])
    # start (the slower of text and encode), three denoises, then the last decode, commit, publish
    assert world.makespan == 0.75 + 3 * 4.0 + 1.5 + 0.125 + 0.0625


def test_decode_bound_session_takes_the_hand_computed_optimum() -> None:
    world = World(lambda order: 5.0 if isinstance(order, DecodeOrder) else usual(order))
    assert world.run([session("a", chunks=3)])
    # denoise(2) waits for decode(0): two undecoded chunks at most, and that costs nothing here
    assert world.makespan == 0.75 + 4.0 + 3 * 5.0 + 0.125 + 0.0625


def test_every_decode_overlaps_the_next_denoise_of_its_session() -> None:
    world = World(groups=(1, 1), decoders=2)
    assert world.run([session("a", chunks=4, row=1), session("b", chunks=4, row=2)])
    denoise = {(o.session_id, o.index): (a, b) for o, a, b in world.logged(DenoiseOrder)}
    decode = {(o.session_id, o.index): (a, b) for o, a, b in world.logged(DecodeOrder)}
    for (name, index), (started, ended) in decode.items():
        if index < 3:
            following = denoise[name, index + 1]
            assert max(started, following[0]) < min(ended, following[1])


def test_chunks_of_a_session_come_in_order_and_all_commit() -> None:
    rows = [session(f"s{i}", chunks=1 + i % 4, row=i + 1) for i in range(20)]
    world = World(groups=(1, 2, 4), decoders=2)
    assert world.run(rows)
    assert world.ledger.done == {row.session_id: None for row in rows}
    for row in rows:
        order = [o.index for o, _, _ in world.logged(DenoiseOrder) if o.session_id == row.session_id]
        assert order == list(range(row.num_chunks))
    assert sorted(o.session_id for o, _, _ in world.logged(CommitOrder)) == sorted(r.session_id for r in rows)
    assert len(world.logged(PublishOrder)) == 5


def test_a_batch_session_keeps_the_degree_of_its_first_chunk() -> None:
    world = World(groups=(1, 2))
    assert world.run([session(f"s{i}", chunks=4, row=i + 1) for i in range(5)])
    degrees: dict[str, set[int]] = {}
    for lane in world.lanes:
        for order, _, _ in lane.log:
            if isinstance(order, DenoiseOrder):
                degrees.setdefault(order.session_id, set()).add(lane.sp_degree)
    assert all(len(seen) == 1 for seen in degrees.values())
    assert {1, 2} == set.union(*degrees.values())
    for order, _, _ in world.logged(CommitOrder):
        assert {chunk.sp_degree for chunk in order.chunks} == degrees[order.session_id]


def test_moves_between_degrees_are_an_option() -> None:
    world = World(groups=(1, 2))
    assert world.run([session("a", chunks=6, row=1), session("b", chunks=2, row=2)], allow_sp_moves=True)
    order = next(o for o, _, _ in world.logged(CommitOrder) if o.session_id == "a")
    assert all(chunk.sp_degree in (1, 2) for chunk in order.chunks)


def test_no_lane_holds_more_than_its_depth_and_limits_hold() -> None:
    limits = Limits(max_sessions=5, max_undecoded=3, max_undecoded_per_session=2)
    world = World(lambda order: 9.0 if isinstance(order, DecodeOrder) else usual(order), groups=(1, 1, 1))
    assert world.run([session(f"s{i}", chunks=3, row=i + 1) for i in range(9)], limits)
    assert all(lane.most_held <= lane.depth for lane in world.lanes)
    moments = [(a, 1) for _, a, _ in world.logged(DenoiseOrder)] + [(b, -1) for _, _, b in world.logged(DecodeOrder)]
    undecoded = peak = 0
    for _, change in sorted(moments):
        undecoded += change
        peak = max(peak, undecoded)
    assert peak <= 3


def test_sessions_share_a_lane_evenly() -> None:
    world = World()
    assert world.run([session(f"s{i}", chunks=4, row=i + 1) for i in range(4)])
    order = [o.index for o, _, _ in world.logged(DenoiseOrder)]
    assert order == sorted(order)


def test_interactive_goes_before_batch() -> None:
    rows = [session(f"b{i}", chunks=3, row=i + 1) for i in range(6)]
    rows.append(session("live", chunks=3, row=7, priority="interactive"))
    world = World()
    assert world.run(rows)
    ends = {o.session_id: b for o, _, b in world.logged(CommitOrder)}
    assert ends["live"] == min(ends.values())


def test_a_bad_session_fails_alone_and_durably() -> None:
    def behaviour(order: Order) -> float | FramelaneError:
        if type(order).__name__ == "EncodeOrder" and order.session_id == "s1":
            return BadInput("not an image", field="image", remedy="give a PNG")
        return usual(order)

    world = World(behaviour)
    assert world.run([session(f"s{i}", row=i + 1) for i in range(3)])
    assert {name for name, error in world.ledger.done.items() if error} == {"s1"}
    (order, _, _) = world.logged(FailOrder)[0]
    assert (order.field, order.row, order.remedy) == ("image", 2, "give a PNG")


def test_equal_prompts_are_encoded_once() -> None:
    rows = [session(f"s{number}", row=number + 1) for number in range(3)]
    rows.append(session("guided", row=4, guidance=2.0))
    rows.append(session("other", row=5, prompt="a forest"))
    world = World()
    assert world.run(rows, Limits(max_sessions=2))
    assert [o.session_id for o, _, _ in world.logged(TextOrder)] == ["s0", "guided", "other"]
    timed = {o.session_id: o.chunks[0].timings["text"] for o, _, _ in world.logged(CommitOrder)}
    assert timed == {"s0": 0.5, "s1": None, "s2": None, "guided": 0.5, "other": 0.5}


def test_who_waits_for_a_prompt_is_served_when_its_owner_fails() -> None:
    def behaviour(order: Order) -> float | FramelaneError:
        if isinstance(order, EncodeOrder) and order.session_id == "s0":
            return BadInput("not an image", field="image")
        return 9.0 if isinstance(order, TextOrder) else usual(order)

    world = World(behaviour)
    assert world.run([session(f"s{number}", row=number + 1) for number in range(3)])
    assert {name for name, error in world.ledger.done.items() if error} == {"s0"}


def test_a_lost_lane_costs_its_chunk_one_more_try() -> None:
    failures = iter([LaneLost("killed")])

    def behaviour(order: Order) -> float | FramelaneError:
        if isinstance(order, DenoiseOrder) and order.session_id == "s0" and order.index == 1:
            return next(failures, None) or usual(order)
        return usual(order)

    world = World(behaviour, groups=(1, 1))
    rows = [session(f"s{i}", row=i + 1) for i in range(3)]
    assert world.run(rows)
    assert world.ledger.done == {row.session_id: None for row in rows}
    assert len(world.ledger.lost) == 1


def test_without_a_lane_left_the_run_aborts_and_says_which() -> None:
    world = World(lambda order: LaneLost("killed") if isinstance(order, DenoiseOrder) else usual(order))
    with pytest.raises(RunAborted, match="denoise"):
        world.run([session("a")])


def test_an_input_that_kills_lanes_is_set_aside() -> None:
    def behaviour(order: Order) -> float | FramelaneError:
        bad = isinstance(order, DenoiseOrder) and order.session_id == "evil"
        return LaneLost("killed") if bad else usual(order)

    world = World(behaviour, groups=(1, 1, 1, 1))
    assert world.run([session("evil", row=1), session("good", row=2)])
    assert world.ledger.done["good"] is None
    assert "3 lanes" in str(world.ledger.done["evil"])


def test_a_store_that_stays_away_aborts_in_the_end_without_losing_a_row() -> None:
    world = World(lambda order: StoreUnavailable("503") if isinstance(order, CommitOrder) else usual(order))
    with pytest.raises(RunAborted, match="503"):
        world.run([session("a")], Limits(max_outage_seconds=100))
    assert world.ledger.done == {}
    assert 100 < world.makespan < 140


def test_rows_settled_before_still_complete_their_shard() -> None:
    world = World()
    rows: list[SessionSpec | Settled] = [
        Settled(1, "old", committed=True),
        session("new", row=2),
        Settled(3, "bad", committed=False),
    ]
    assert world.run(rows)
    (order, _, _) = world.logged(PublishOrder)[0]
    assert order.stored == ("old",)


def test_stop_finishes_what_runs_and_reports_unfinished() -> None:
    def behaviour(order: Order) -> float:
        if isinstance(order, DenoiseOrder) and order.index == 1:
            world.engine.stop()
        return usual(order)

    world = World(behaviour)
    assert world.run([session("a", chunks=5)]) is False
    assert world.ledger.done == {}
    assert max(o.index for o, _, _ in world.logged(DenoiseOrder)) == 1


def test_payload_accounting_returns_to_zero() -> None:
    world = World()
    assert world.run([session(f"s{i}", row=i + 1) for i in range(3)])
    assert world.board.census.payload_bytes == 0

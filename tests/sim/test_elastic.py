"""Sessions that are called off, and lanes that come and go, while the engine runs."""

from __future__ import annotations

from gamecraft_core.base.errors import Cancelled, FramelaneError, LaneLost
from gamecraft_core.base.messages import DenoiseOrder, FailOrder, Order
from tests.fakes.lanes import FakeLane
from tests.fakes.sessions import session
from tests.fakes.world import World, usual
from tests.sim.test_healing import FakeKeeper


def test_a_session_that_is_called_off_is_over_at_once_and_others_go_on() -> None:
    def behaviour(order: Order) -> float:
        if isinstance(order, DenoiseOrder) and order.session_id == "b" and order.index == 1:
            world.engine.cancel("b")
            world.engine.cancel("nobody")
        return usual(order)

    world = World(behaviour)
    rows = [session(name, chunks=3, row=row) for row, name in enumerate("abc", start=1)]
    assert world.run(rows)
    assert isinstance(world.ledger.done["b"], Cancelled)
    assert world.ledger.done["a"] is world.ledger.done["c"] is None
    assert max(o.index for o, _, _ in world.logged(DenoiseOrder) if o.session_id == "b") == 1
    assert not [o for o, _, _ in world.logged(FailOrder)]
    assert world.board.census.payload_bytes == 0
    assert world.engine.scheduler.credits.undecoded.total == 0


def test_a_fleet_grows_and_shrinks_while_it_runs() -> None:
    def behaviour(order: Order) -> float:
        if isinstance(order, DenoiseOrder) and order.session_id == "s0" and order.index == 1:
            world.lanes.append(new)
            world.engine.roster.add(new)
            world.engine.roster.drain(old)
        return usual(order)

    world = World(behaviour)
    old = next(lane for lane in world.lanes if lane.stage == "denoise")
    new = FakeLane("denoise-new", "denoise", usual)
    assert world.run([session(f"s{n}", chunks=4, row=n + 1) for n in range(3)])
    assert set(world.ledger.done.values()) == {None}
    assert world.ledger.moved == [("joined", "denoise-new"), ("left", "denoise-0")]
    assert max(a for _, a, _ in old.log) < max(a for _, a, _ in new.log)


def test_a_draining_lane_that_is_lost_is_not_replaced() -> None:
    failures = iter([LaneLost("preempted")])

    def behaviour(order: Order) -> float | FramelaneError:
        if isinstance(order, DenoiseOrder) and order.index == 1 and (error := next(failures, None)):
            world.engine.roster.drain(world.lanes[2])
            return error
        return usual(order)

    world = World(behaviour, groups=(1, 1))
    victim = world.lanes[2]
    assert victim.stage == "denoise"
    keeper = FakeKeeper(world)
    assert world.run([session("a", chunks=3)], keeper=keeper)
    assert world.ledger.done == {"a": None}
    assert (world.ledger.lost, keeper.asked) == (["denoise-0"], [])
    assert world.ledger.moved == [("left", "denoise-0")]

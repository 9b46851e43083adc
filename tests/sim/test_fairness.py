"""Shares, deadlines and lanes: who goes first, who never waits for ever, and where a task goes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.messages import Receipt
from gamecraft_core.base.spec import SessionSpec
from orchestrator import playback
from orchestrator.census import Census
from orchestrator.fairness import Queue, Turns
from orchestrator.limits import Limits, TenantLimits
from orchestrator.policy import FirstCome
from orchestrator.pools import Fleet
from orchestrator.scheduler import Scheduler
from orchestrator.simulation.arrivals import at_once
from orchestrator.simulation.lanes import SimLane
from orchestrator.simulation.simulator import Simulation
from orchestrator.simulation.times import Constant, Lognormal
from orchestrator.tasks import Rank, Session, Task
from tests.fakes.sessions import session
from tests.fakes.world import Ledger

NEED = ("denoise", "tiny", None)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}
LIMITS = Limits(tenants={name: TenantLimits(weight=weight) for name, weight in WEIGHTS.items()})


def task(tenant: str = "default", rank: Rank = (1, 0.0, 0), *, lane: str | None = None, **changes: Any) -> Task:
    held = Session(spec=session(tenant=tenant, **changes), number=1, base=0.0, lane=lane)
    return Task("denoise", NEED, rank, 0.0, held)  # type: ignore[arg-type]


def lane(name: str, **facts: Any) -> SimLane:
    return SimLane(name, "denoise", Constant(1.0), **facts)


@given(st.lists(st.sampled_from(["a", "b", "c", "take"]), max_size=200))
def test_tenants_that_always_have_work_get_what_their_weights_say(steps: list[str]) -> None:
    """The bound of start-time fair queueing, for every interval in which two tenants both had something ready."""
    queue = Queue(NEED, Turns(LIMITS, Census()))  # type: ignore[arg-type]
    ready: Counter[str] = Counter()
    #: Dispatches of either, since both of the pair have had something ready without a break.
    since: dict[tuple[str, str], dict[str, int]] = {}
    for step in steps:
        if step != "take":
            queue.push(task(step))
            ready[step] += 1
        elif (head := queue.head()) is not None:
            assert queue.pop() is head
            assert head.session is not None
            name = head.session.spec.tenant
            ready[name] -= 1
            for pair, counts in since.items():
                if name in pair:
                    counts[name] += 1
        pairs = [(x, y) for x in "abc" for y in "abc" if x < y and ready[x] and ready[y]]
        since = {pair: since.get(pair, {pair[0]: 0, pair[1]: 0}) for pair in pairs}
        for (x, y), counts in since.items():
            apart = abs(counts[x] / WEIGHTS[x] - counts[y] / WEIGHTS[y])
            assert apart <= 1 / WEIGHTS[x] + 1 / WEIGHTS[y] + 1e-9
    assert ready.total() == sum(1 for _ in queue)


def test_who_had_nothing_to_do_hoards_no_claims() -> None:
    queue = Queue(NEED, Turns(Limits(), Census()))  # type: ignore[arg-type]
    for _ in range(100):
        queue.push(task("busy"))
    for _ in range(50):
        assert queue.head() is not None
        queue.pop()
    for _ in range(50):
        queue.push(task("late"))
    took = Counter[str]()
    for _ in range(40):
        head = queue.head()
        assert head is not None
        assert head.session is not None
        took[queue.pop().session.spec.tenant] += 1  # type: ignore[union-attr]
    assert took == {"busy": 20, "late": 20}


def test_live_tasks_go_by_deadline_before_batch_ones_whoever_is_owed() -> None:
    queue = Queue(NEED, Turns(Limits(), Census()))  # type: ignore[arg-type]
    tasks = [task("a", (1, 0.0, 1)), task("b", (0, 9.0, 2)), task("a", (0, 4.0, 3)), task("b", (-1, 0.0, 0))]
    for each in tasks:
        queue.push(each)
    order = []
    while queue.head() is not None:
        order.append(queue.pop())
    assert order == [tasks[3], tasks[2], tasks[1], tasks[0]]


def test_forgotten_tenants_do_not_fill_memory() -> None:
    turns = Turns(Limits(), Census())
    queue = Queue(NEED, turns)  # type: ignore[arg-type]
    for number in range(30_000):
        queue.push(task(f"t{number}"))
        assert queue.head() is not None
        queue.pop()
    assert len(turns._shares) < 10_000


def test_a_newcomer_of_a_tenant_neither_starves_its_sessions_nor_waits_behind_them_all() -> None:
    """One lane, nearly filled by a stream of short sessions, and a long one beside it: both get their turns."""
    ledger = Ledger()
    simulation = Simulation(stages(1), Limits(max_sessions=999), listeners=[ledger])
    simulation.arrive([(0.0, session("long", chunks=20))])
    simulation.arrive([(1.05 * at, session(f"s{at}", chunks=1)) for at in range(1, 300)])
    simulation.run(until=250.0)
    assert "long" in ledger.done
    assert len([name for name in ledger.done if name != "long"]) > 150


def test_a_chunk_is_due_when_the_one_before_stops_playing() -> None:
    spec = session(chunks=5, priority="interactive", chunk_frames=50, fps=25)
    held = Session(spec=spec, number=1, base=0.0, due=10.0)
    assert [playback.due(held, index) for index in range(3)] == [10.0, 12.0, 14.0]
    played = [(4.0, [6.0, 8.0]), (5.0, [8.0, 10.0]), (9.5, [11.5, 13.5])]  # early, early, 1.5 s late
    for now, expected in played:
        playback.stored(held, now)
        held.written += 1
        assert [playback.due(held, held.written + ahead) for ahead in range(2)] == expected


def test_the_last_lane_wins_ties_and_only_those() -> None:
    fleet = Fleet()
    for name in ("x", "y", "z"):
        fleet.join(lane(name))
    found = fleet.find(NEED, 9, fastest=False, last="y")  # type: ignore[arg-type]
    assert found is not None
    assert found.lane.name == "y"
    found.pool.took(found, task())
    other = fleet.find(NEED, 9, fastest=False, last="y")  # type: ignore[arg-type]
    assert other is not None
    assert other.lane.name == "x", "a lane that holds work is not waited for"
    gone = fleet.find(NEED, 9, fastest=False, last="w")  # type: ignore[arg-type]
    assert gone is not None
    assert gone.lane.name == "x"


def test_what_has_a_deadline_goes_to_the_fastest_of_the_free() -> None:
    fleet = Fleet()
    for name, degree, speed in (("slow", 1, None), ("four", 4, None), ("new", 1, 9.0)):
        fleet.join(lane(name, sp_degree=degree, speed=speed))

    def goes_to(fastest: bool, last: str | None = None) -> str:
        found = fleet.find(NEED, 9, fastest=fastest, last=last)  # type: ignore[arg-type]
        assert found is not None
        return str(found.lane.name)

    assert goes_to(fastest=False) == "slow"
    assert goes_to(fastest=True, last="four") == "new"
    first = fleet.find(NEED, 9, fastest=True, last=None)  # type: ignore[arg-type]
    assert first is not None
    first.pool.took(first, task())
    assert goes_to(fastest=True) == "four", "before a second order on a faster one"
    assert goes_to(fastest=False, last="four") == "four"


@pytest.mark.parametrize(
    ("others", "second"),
    [({}, 2), ({"tenant": "other"}, 1), ({"priority": "interactive"}, 1)],
    ids=["one-tenant", "two-tenants", "a-live-session"],
)
def test_an_order_waits_behind_another_only_where_nobody_is_hurt_by_it(others: dict[str, Any], second: int) -> None:
    census = Census()
    scheduler = Scheduler(Limits(), census)
    scheduler.add_lane(lane("only"))
    for spec in (session("a"), session("b", **others)):
        census.came(spec)
    scheduler.push([task(), task()])
    assert len(scheduler.step()) == second


def stages(denoisers: int, seconds: float = 1.0) -> list[SimLane]:
    return [
        SimLane("text", "text", Constant(0.01)),
        SimLane("encode", "encode", Constant(0.01)),
        *(SimLane(f"denoise-{n}", "denoise", Lognormal(seconds, 0.1)) for n in range(denoisers)),
        *(SimLane(f"decode-{n}", "decode", Constant(0.2 * seconds)) for n in range(max(1, denoisers // 2))),
        SimLane("write", "write", Constant(0.001)),
    ]


class Ends(Ledger):
    """When sessions ended."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, float] = {}

    def finished(self, spec: SessionSpec, error: Any, now: float) -> None:
        super().finished(spec, error, now)
        self.at[spec.session_id] = now


def test_a_small_tenant_is_not_held_up_by_a_large_one() -> None:
    small = [session(f"s{n}", tenant="small", chunks=4) for n in range(4)]
    large = [session(f"l{n}", tenant="large", chunks=4) for n in range(200)]
    means = {}
    for name, policy in (("fair", None), ("first come", FirstCome())):
        ends = Ends()
        simulation = Simulation(stages(4), Limits(max_sessions=999), listeners=[ends], policy=policy)
        simulation.arrive([*at_once(large), *at_once(small, at=5.0)])
        assert simulation.run().committed == 204
        means[name] = sum(ends.at[spec.session_id] for spec in small) / len(small) - 5.0
    assert means["fair"] < 1.3 * (4 * 2 * 1.0 + 0.2), "as on its half of the lanes"
    assert means["first come"] > 5 * means["fair"]


def test_live_sessions_move_between_degrees_and_batch_ones_do_not() -> None:
    class Degrees(Ledger):
        """Lanes by session."""

        def __init__(self) -> None:
            super().__init__()
            self.lanes: dict[str, set[str]] = {}

        def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
            if receipt.stage == "denoise":
                self.lanes.setdefault(receipt.session_id, set()).add(receipt.lane)

    heard = Degrees()
    lanes = [*stages(0), lane("one"), SimLane("four", "denoise", Constant(0.4), sp_degree=4)]
    simulation = Simulation(lanes, Limits(), listeners=[heard])
    rows = [session(f"live{n}", chunks=9, priority="interactive") for n in range(2)]
    simulation.arrive(at_once([*rows, *(session(f"batch{n}", chunks=3) for n in range(3))]))
    assert simulation.run().committed == 5
    assert {"one", "four"} in [heard.lanes["live0"], heard.lanes["live1"]]
    assert all(len(heard.lanes[f"batch{n}"]) == 1 for n in range(3))

"""How many lanes a kind of work wants: within bounds, up under pressure, down when idle, and at rest otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.demand import Demand, Load, Pace

PACE = Pace(target_wait_seconds=5.0, patience_seconds=2.0, idle_seconds=20.0, look_seconds=1.0)


def life(
    demand: Demand,
    work: Callable[[int], int],
    *,
    lanes: int,
    start_up: int = 0,
    looks: int = 300,
) -> tuple[list[int], list[int]]:
    """Look once a second; a lane takes ``start_up`` looks to come. Counts (lanes there and coming), and changes."""
    coming: list[int] = []
    counts, changes = [], []
    for now in range(looks):
        lanes += sum(at <= now for at in coming)
        coming = [at for at in coming if at > now]
        change = demand.change(Load(work(now), lanes, len(coming)), float(now))
        if change > 0:
            coming.append(now + start_up)
        elif change < 0 and coming:
            coming.pop()
        else:
            lanes += change
        counts.append(lanes + len(coming))
        changes.append(change)
    return counts, changes


@given(
    least=st.integers(1, 4),
    more=st.integers(0, 6),
    start_up=st.integers(0, 12),
    at_once=st.integers(1, 3),
    work=st.lists(st.integers(0, 60), min_size=1, max_size=50),
    seconds=st.floats(0.1, 40.0),
)
def test_never_outside_the_bounds(
    least: int, more: int, start_up: int, at_once: int, work: list[int], seconds: float
) -> None:
    demand = Demand(least, least + more, PACE, at_once)
    demand.took(seconds)
    counts, _ = life(demand, lambda now: work[now // 6 % len(work)], lanes=least, start_up=start_up)
    assert min(counts) >= least
    assert max(counts) <= least + more


@given(
    lanes=st.integers(1, 9),
    work=st.integers(0, 40),
    start_up=st.integers(0, 12),
    at_once=st.integers(1, 3),
    seconds=st.floats(0.1, 40.0),
)
def test_under_constant_demand_it_goes_one_way_and_then_rests(
    lanes: int, work: int, start_up: int, at_once: int, seconds: float
) -> None:
    demand = Demand(1, 9, PACE, at_once)
    demand.took(seconds)
    counts, changes = life(demand, lambda now: work, lanes=lanes, start_up=start_up)
    assert {1, -1} - set(changes), "never back and forth"
    assert not any(changes[-100:])
    at_rest = Load(work, counts[-1], 0)
    assert counts[-1] == 9 or demand.wait(at_rest) <= PACE.target_wait_seconds
    assert counts[-1] == 1 or work > (counts[-1] - 1) * at_once, "with one fewer somebody would wait"


@given(rate=st.floats(0.05, 2.0), seconds=st.floats(0.5, 20.0), start_up=st.integers(0, 10))
def test_constant_arrivals_leave_it_at_rest(rate: float, seconds: float, start_up: int) -> None:
    """An open queue: arrivals at a rate, served by as many lanes as there are; a part of an order is in a lane, too."""
    demand, lanes, coming = Demand(1, 60, PACE), 1, list[int]()
    demand.took(seconds)
    backlog, changes = 0.0, []
    for now in range(1500):
        lanes += sum(at <= now for at in coming)
        coming = [at for at in coming if at > now]
        change = demand.change(Load(math.ceil(backlog - 1e-9), lanes, len(coming)), float(now))
        changes.append(change)
        if change > 0:
            coming.append(now + start_up)
        elif change < 0:
            lanes -= 1
        backlog = max(rate * seconds, backlog + rate - lanes / seconds)  # at least what is at work at any moment
    assert not any(changes[-300:])
    assert lanes >= rate * seconds - 1


def test_sustained_demand_adds_and_a_moment_of_it_does_not() -> None:
    demand = Demand(1, 4, PACE)
    demand.took(10.0)
    _, changes = life(demand, lambda now: 9 if now % 3 == 0 else 1, lanes=1)
    assert not any(changes)
    counts, changes = life(Demand(1, 4, PACE), lambda now: 9, lanes=1)
    assert not any(changes), "nothing is known yet of how long an order takes"
    steady = Demand(1, 4, PACE)
    steady.took(10.0)
    counts, changes = life(steady, lambda now: 9, lanes=1, start_up=30)
    assert changes[:6] == [0, 0, 1, 1, 1, 0]
    assert counts[-1] == 4


def test_it_removes_when_idle_for_a_while_and_not_before() -> None:
    demand = Demand(2, 5, PACE)
    demand.took(1.0)
    counts, changes = life(demand, lambda now: 5 if now == 10 else 0, lanes=5)
    assert changes.index(-1) == 10 + 20 + 1, "at one moment all five were at work"
    assert counts[-1] == 2


def test_what_is_on_its_way_is_not_waited_for_when_nobody_needs_it() -> None:
    demand = Demand(1, 3, PACE)
    demand.took(10.0)
    counts, changes = life(demand, lambda now: 9 if now < 5 else 0, lanes=1, start_up=1000)
    assert max(counts) == 3
    assert counts[-1] == 1
    assert changes.count(1) == changes.count(-1) == 2


@pytest.mark.parametrize(("lanes", "change"), [(0, 1), (1, 1), (2, 0), (3, 0), (4, -1)])
def test_back_between_the_bounds_at_once(lanes: int, change: int) -> None:
    assert Demand(2, 3, PACE).change(Load(0, lanes, 0), 0.0) == change


def test_without_an_upper_bound_the_number_is_fixed() -> None:
    demand = Demand(2, None, PACE)
    demand.took(100.0)
    counts, _ = life(demand, lambda now: now % 60, lanes=2)
    assert set(counts) == {2}

"""The schedule of faults: the seed decides it, everything that is promised is in it, and each round can strike."""

from __future__ import annotations

from collections import Counter

import pytest

from gamecraft_core.base.points import POINTS
from tests.chaos.schedule import FIRST_POINT, RESUMED_POINT, WEIGHTS, Fault, draw, prepared, rounds

KINDS = set(WEIGHTS) - {"point"}


def points(faults: tuple[Fault, ...]) -> list[str]:
    return [fault.point for fault in faults if fault.kind == "point"]


def test_the_seed_decides_every_fault() -> None:
    assert draw(1, 200) == draw(1, 200)
    assert draw(1, 200) != draw(2, 200)
    assert draw(1, 12) == draw(1, 12)


@pytest.mark.parametrize("seed", range(20))
def test_two_hundred_hold_every_kind_and_every_point(seed: int) -> None:
    faults = draw(seed, 200)
    assert len(faults) == 200
    assert [fault.number for fault in faults] == list(range(200))
    assert {fault.kind for fault in faults} - {"point"} == KINDS
    assert set(points(faults)) == set(POINTS)
    assert points(faults).count(FIRST_POINT) == 1, "an output is claimed once a round"


def test_kinds_come_as_often_as_they_are_weighted() -> None:
    counts = Counter(fault.kind for seed in range(50) for fault in draw(seed, 200))
    drawn = 50 * (200 - len(KINDS) - len(POINTS))
    for kind, weight in WEIGHTS.items():
        certain = 50 * (len(POINTS) if kind == "point" else 1)
        assert counts[kind] - certain == pytest.approx(drawn * weight / sum(WEIGHTS.values()), rel=0.2)


@pytest.mark.parametrize("seed", range(20))
def test_a_dozen_are_distinct_and_hold_what_matters_most(seed: int) -> None:
    faults = draw(seed, 12)
    assert len({fault.title for fault in faults}) == len(faults) == 12
    assert {"kill_rank", "kill_driver"} <= {fault.kind for fault in faults}
    assert len(points(faults)) == 4


@pytest.mark.parametrize("seed", range(20))
def test_rounds_hold_every_fault_once(seed: int) -> None:
    faults = draw(seed, 200)
    cut = list(rounds(faults, 25))
    assert len(cut) == 8
    wanted = Counter(fault.title for fault in faults)
    found = Counter(fault.title for each in cut for fault in each)
    assert not wanted - found
    assert set(found - wanted) <= {"kill_driver"}, "added where a resumption needs one"


def test_what_strikes_first_comes_first_and_a_resumption_has_a_death_after_it() -> None:
    faults = draw(4, 200)
    for each in (*rounds(faults, 25), prepared([fault for fault in faults if fault.point == RESUMED_POINT][:1])):
        titles = [fault.title for fault in each]
        if FIRST_POINT in titles:
            assert titles.index(FIRST_POINT) == 0
            assert not each[0].puts
        if RESUMED_POINT in titles:
            assert "kill_driver" in titles[titles.index(RESUMED_POINT) :]

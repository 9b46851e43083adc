"""The overlap ratio, by hand and against counting ticks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.overlap import Interval, overlap_ratio

INTERVALS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 9)).map(lambda pair: (pair[0], sum(pair))), max_size=9
)


def test_by_hand() -> None:
    assert overlap_ratio([(0, 2), (4, 6)], [(1, 5)]) == 0.5
    assert overlap_ratio([(0, 2), (1, 2)], [(0, 1), (0, 1)]) == 0.5
    assert overlap_ratio([(0, 1)], []) == 0
    assert overlap_ratio([], [(0, 1)]) is None


@given(INTERVALS, INTERVALS)
def test_equals_counting_ticks(decode: list[Interval], denoise: list[Interval]) -> None:
    def busy(intervals: list[Interval], tick: int) -> bool:
        return any(start <= tick < end for start, end in intervals)

    ticks = [tick for tick in range(60) if busy(decode, tick)]
    expected = sum(busy(denoise, tick) for tick in ticks) / len(ticks) if ticks else None
    assert overlap_ratio(decode, denoise) == (None if expected is None else pytest.approx(expected))

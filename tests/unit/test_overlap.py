"""The overlap ratio, by hand and against counting ticks; of a long run, in bounded memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import overlap
from orchestrator.overlap import Interval, Overlap, overlap_ratio

INTERVALS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))), max_size=9
)


def by_ticks(decode: list[Interval], denoise: list[Interval]) -> float | None:
    def busy(intervals: list[Interval]) -> set[int]:
        return {tick for start, end in intervals for tick in range(int(start), int(end))}

    ticks = busy(decode)
    return len(ticks & busy(denoise)) / len(ticks) if ticks else None


def test_by_hand() -> None:
    assert overlap_ratio([(0, 2), (4, 6)], [(1, 5)]) == 0.5
    assert overlap_ratio([(0, 2), (1, 2)], [(0, 1), (0, 1)]) == 0.5
    assert overlap_ratio([(0, 1)], []) == 0
    assert overlap_ratio([], [(0, 1)]) is None


@given(INTERVALS, INTERVALS)
def test_equals_counting_ticks(decode: list[Interval], denoise: list[Interval]) -> None:
    expected = by_ticks(decode, denoise)
    assert overlap_ratio(decode, denoise) == (None if expected is None else pytest.approx(expected))


def test_a_long_run_is_exact_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_UNMERGED", 16)
    made, numbers = Overlap(max_spans=64), random.Random(7)
    intervals: dict[str, list[Interval]] = {"decode": [], "denoise": []}
    for step in range(3000):  # two stages with pauses, and answers that come up to 40 ticks late
        start = step * 4 - numbers.randrange(40)
        stage = "decode" if step % 2 else "denoise"
        interval = (start, start + numbers.randrange(1, 6))
        intervals[stage].append(interval)
        (made.decoded if stage == "decode" else made.denoised)(*interval)
    assert made.ratio() == pytest.approx(by_ticks(intervals["decode"], intervals["denoise"]))
    for busy in (made._decode, made._denoise):
        assert len(busy.starts) + busy.unmerged <= 64 + 16


def test_what_comes_too_late_to_be_placed_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_UNMERGED", 1)
    made = Overlap(max_spans=4)
    for start in range(0, 40, 4):
        made.denoised(start, start + 2)
        made.decoded(start, start + 1)
    made.decoded(0, 1)
    assert made.ratio() == 1.0

"""How well decode hides behind denoise. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[float, float]


def overlap_ratio(decode: Iterable[Interval], denoise: Iterable[Interval]) -> float | None:
    """Share of the time in which some decode lane is busy during which some denoise lane is busy too.

    Intervals are (start, end) seconds in any order; None where nothing was decoded.
    """
    behind, before = _union(decode), _union(denoise)
    total = sum(end - start for start, end in behind)
    if total <= 0:
        return None
    shared, position = 0.0, 0
    for start, end in behind:
        while position < len(before) and before[position][1] <= start:
            position += 1
        at = position
        while at < len(before) and before[at][0] < end:
            shared += min(end, before[at][1]) - max(start, before[at][0])
            at += 1
    return shared / total


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged

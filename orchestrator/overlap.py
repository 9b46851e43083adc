"""How well decode hides behind denoise. Pure.

Invariant: intervals may come in any order, and the ratio is that of all of them; memory is bounded, because the oldest
busy spans are folded into sums once there are many. Only an interval that begins before everything kept loses its part
there.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Doubles = npt.NDArray[np.float64]

#: Disjoint busy spans kept of either stage; and intervals that wait to be merged into them.
MAX_SPANS = 1 << 18
_UNMERGED = 1 << 13


def overlap_ratio(decode: Iterable[Interval], denoise: Iterable[Interval]) -> float | None:
    """Share of the time in which some decode lane is busy during which some denoise lane is busy too.

    Intervals are (start, end) seconds in any order; None where nothing was decoded.
    """
    overlap = Overlap()
    for interval in decode:
        overlap.decoded(*interval)
    for interval in denoise:
        overlap.denoised(*interval)
    return overlap.ratio()


class Overlap:
    """The same ratio of intervals that come one by one."""

    def __init__(self, max_spans: int = MAX_SPANS) -> None:
        self._max_spans = max_spans
        self._decode = _Busy()
        self._denoise = _Busy()
        self._folded = 0.0
        self._folded_shared = 0.0

    def decoded(self, start: float, end: float) -> None:
        self._add(self._decode, start, end)

    def denoised(self, start: float, end: float) -> None:
        self._add(self._denoise, start, end)

    def ratio(self) -> float | None:
        """Of everything so far; None where nothing was decoded."""
        total = self._folded + self._decode.seconds()
        shared = self._folded_shared + self._shared()
        return shared / total if total > 0 else None

    def _add(self, busy: _Busy, start: float, end: float) -> None:
        busy.add(start, end)
        if busy.unmerged >= _UNMERGED and busy.merge() > self._max_spans:
            self._fold(busy.middle())

    def _shared(self) -> float:
        return float((self._denoise.until(self._decode.ends) - self._denoise.until(self._decode.starts)).sum())

    def _fold(self, time: float) -> None:
        """Keep of the spans before ``time`` their sums only."""
        total, shared = self._decode.seconds(), self._shared()
        self._decode.cut(time)
        self._denoise.cut(time)
        self._folded += total - self._decode.seconds()
        self._folded_shared += shared - self._shared()


class _Busy:
    """When some lane of a stage was busy: disjoint spans in ascending order."""

    def __init__(self) -> None:
        self._starts = np.empty(0)
        self._ends = np.empty(0)
        self._new = array("d")
        self._from = -np.inf

    @property
    def unmerged(self) -> int:
        return len(self._new) // 2

    @property
    def starts(self) -> Doubles:
        self.merge()
        return self._starts

    @property
    def ends(self) -> Doubles:
        self.merge()
        return self._ends

    def add(self, start: float, end: float) -> None:
        self._new.append(start)
        self._new.append(end)

    def merge(self) -> int:
        """Take in what is new; the number of spans."""
        if self._new:
            new = np.array(self._new).reshape(-1, 2)
            self._new = array("d")
            self._join(np.concatenate([self._starts, new[:, 0]]), np.concatenate([self._ends, new[:, 1]]))
        return len(self._starts)

    def middle(self) -> float:
        """The start of the span in the middle."""
        return float(self.starts[len(self._starts) // 2])

    def seconds(self) -> float:
        return float((self.ends - self.starts).sum())

    def until(self, times: Doubles) -> Doubles:
        """Busy seconds before each of ``times``."""
        if not len(self.starts):
            return np.zeros(len(times))
        before = np.searchsorted(self._starts, times, side="right")
        lengths = np.concatenate([[0.0], np.cumsum(self._ends - self._starts)])
        last = np.maximum(before - 1, 0)
        return np.where(before > 0, lengths[last] + np.minimum(times, self._ends[last]) - self._starts[last], 0.0)

    def cut(self, time: float) -> None:
        """Forget what was before ``time``, and from now on whatever comes of that."""
        starts, ends = self.starts, self.ends
        self._from = time
        self._join(starts, ends)

    def _join(self, starts: Doubles, ends: Doubles) -> None:
        starts = np.maximum(starts, self._from)
        later = ends > starts
        order = np.argsort(starts[later], kind="stable")
        starts, ends = starts[later][order], np.maximum.accumulate(ends[later][order])
        apart = starts[1:] > ends[:-1]
        self._starts = starts[np.concatenate([[True], apart])] if len(starts) else starts
        self._ends = ends[np.concatenate([apart, [True]])] if len(ends) else ends

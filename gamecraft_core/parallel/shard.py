"""Which rows of the video sequence a rank holds: equal parts, the last ones padded with rows of zeros."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Shard:
    """Rank ``rank``'s part of ``total`` rows among ``world`` ranks."""

    total: int
    rank: int = 0
    world: int = 1

    @property
    def local(self) -> int:
        """Rows on every rank, padding included."""
        return -(-self.total // self.world)

    @property
    def padded(self) -> int:
        """Rows on all ranks together, padding included."""
        return self.local * self.world

    def take(self, rows: Tensor) -> Tensor:
        """This rank's [local, ...] of ``rows`` [total, ...]."""
        if self.world == 1:
            return rows
        start = self.rank * self.local
        return pad_rows(rows[start : start + self.local], self.local)

    def local_index(self, row: int) -> int:
        """Where row ``row`` of the whole lies on this rank, clamped to 0..local: the first row not before it."""
        return min(max(row - self.rank * self.local, 0), self.local)


def pad_rows(rows: Tensor, length: int, front: int = 0) -> Tensor:
    """``rows`` as ``length`` rows: ``front`` rows of zeros before them, the rest after."""
    back = length - front - len(rows)
    return F.pad(rows, [0, 0] * (rows.dim() - 1) + [front, back]) if front or back else rows

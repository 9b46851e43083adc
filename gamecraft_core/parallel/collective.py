"""What a sequence-parallel denoise asks of its group, behind one small interface that is passed in.

Invariant: every rank of a group makes the same calls in the same order with tensors of the same shape.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Collective(Protocol):
    """A group of ranks as one of them sees it."""

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...

    def all_to_all(self, parts: Tensor) -> Tensor:
        """Send ``parts[r]`` to rank r; row r of the answer came from rank r. ``parts`` is [world, ...]."""
        ...

    def all_gather(self, rows: Tensor) -> Tensor:
        """Every rank's ``rows`` [n, ...] laid end to end: [world * n, ...]."""
        ...


class Solo:
    """A group of one: nothing travels."""

    rank = 0
    world = 1

    def all_to_all(self, parts: Tensor) -> Tensor:
        return parts

    def all_gather(self, rows: Tensor) -> Tensor:
        return rows


class Distributed:
    """A torch.distributed process group of any backend; ``None`` is the default group."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank = dist.get_rank(group)
        self.world = dist.get_world_size(group)

    def all_to_all(self, parts: Tensor) -> Tensor:
        parts = parts.contiguous()
        received = torch.empty_like(parts)
        dist.all_to_all_single(received, parts, group=self._group)
        return received

    def all_gather(self, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        gathered = rows.new_empty((self.world * len(rows), *rows.shape[1:]))
        dist.all_gather_into_tensor(gathered, rows, group=self._group)
        return gathered

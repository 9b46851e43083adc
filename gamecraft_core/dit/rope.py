"""Rotary position embedding over (time, height, width), on adjacent channel pairs.

A table holds one complex number per pair, [tokens, 1, head_dim / 2]: multiplying pairs, read as complex numbers, by it
is the rotation. Token order is time, height, width with width fastest; positions count from 0 over all frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gamecraft_core.dit.stream import Grid
from gamecraft_core.parallel.shard import Shard


def rope_table(grid: Grid, dims: Grid, theta: float) -> Tensor:
    """The table of ``grid`` tokens, whose channels are split ``dims`` among time, height and width; complex64."""
    axes = []
    for axis, (size, dim) in enumerate(zip(grid, dims, strict=True)):
        frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        angles = torch.outer(torch.arange(size, dtype=torch.float32), frequencies)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = size
        axes.append(angles.view(shape).expand(*grid, -1))
    all_angles = torch.cat(axes, dim=-1).flatten(0, 2)
    return torch.polar(torch.ones_like(all_angles), all_angles)[:, None]


#: Layouts whose tables are kept; a run has two for each video size in it.
_KEPT_TABLES = 8


class RopeTables:
    """Tables by layout, made once and kept on the device while they are among the last few made."""

    def __init__(self, dims: Grid, theta: float, device: torch.device) -> None:
        self._dims = dims
        self._theta = theta
        self._device = device
        self._tables: dict[tuple[Grid, Shard], Tensor] = {}

    def rows(self, grid: Grid, shard: Shard) -> Tensor:
        """The table's rows for one rank's tokens."""
        key = grid, shard
        if key not in self._tables:
            if len(self._tables) == _KEPT_TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[key] = shard.take(rope_table(grid, self._dims, self._theta)).to(self._device)
        return self._tables[key]


def rotate_(x: Tensor, table: Tensor) -> None:
    """Rotate the first ``len(table)`` rows of ``x`` [..., rows, heads, head_dim] (float32) in place."""
    rows = x[..., : len(table), :, :]
    torch.view_as_complex(rows.view(*rows.shape[:-1], table.shape[-1], 2)).mul_(table)

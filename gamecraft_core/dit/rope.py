"""Rotary position embedding over (time, height, width), on adjacent channel pairs.

A table holds one complex number per pair, [tokens, 1, head_dim / 2]: multiplying pairs, read as complex numbers, by it
is the rotation. Token order is time, height, width with width fastest; positions are those of the patches, whatever
lies between them in the sequence. A token of several patches has the mean of their numbers, so it turns and shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gamecraft_core.dit.stream import Grid
from gamecraft_core.parallel.shard import Shard


@dataclass(frozen=True, slots=True)
class Cells:
    """Tokens of ``height`` by ``width`` patches at each of ``times``, one for every ``side`` of them along each axis.

    Sides that do not divide are made longer by repeating the last patch.
    """

    times: tuple[int, ...]
    height: int
    width: int
    side: int = 1

    @property
    def tokens(self) -> int:
        across = -(-self.height // self.side) * -(-self.width // self.side)
        return -(-len(self.times) // self.side) * across


def rope_table(grid: Grid, dims: Grid, theta: float) -> Tensor:
    """The table of ``grid`` tokens of one patch, at times from 0 on; see ``cells_table``."""
    return cells_table(Cells(tuple(range(grid[0])), *grid[1:]), dims, theta)


def cells_table(cells: Cells, dims: Grid, theta: float) -> Tensor:
    """The table of ``cells``, whose channels are split ``dims`` among time, height and width; complex64."""
    side = cells.side
    places = [_edged(place, side) for place in (cells.times, range(cells.height), range(cells.width))]
    axes = []
    for axis, (place, dim) in enumerate(zip(places, dims, strict=True)):
        frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        angles = torch.outer(torch.tensor(place, dtype=torch.float32), frequencies)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = len(place)
        axes.append(angles.view(shape).expand(*map(len, places), -1))
    all_angles = torch.cat(axes, dim=-1)
    turns = torch.polar(torch.ones_like(all_angles), all_angles)
    if side > 1:
        t, h, w = (len(place) // side for place in places)
        turns = turns.view(t, side, h, side, w, side, -1).mean((1, 3, 5))
    return turns.flatten(0, 2)[:, None]


def _edged(place: Sequence[int], side: int) -> tuple[int, ...]:
    """Positions made as many as a multiple of ``side`` by repeating the last."""
    return (*place, *[place[-1]] * (-len(place) % side))


#: Layouts whose tables are kept; a run has two to four for each video size in it.
_KEPT_TABLES = 8


class RopeTables:
    """Tables by layout, made once and kept on the device while they are among the last few made."""

    def __init__(self, dims: Grid, theta: float, device: torch.device) -> None:
        self._dims = dims
        self._theta = theta
        self._device = device
        self._tables: dict[tuple[tuple[Cells, ...], Shard], Tensor] = {}

    def rows(self, parts: tuple[Cells, ...], shard: Shard) -> Tensor:
        """The rows of the tables of ``parts``, one after the other, for one rank's tokens."""
        key = parts, shard
        if key not in self._tables:
            if len(self._tables) == _KEPT_TABLES:
                del self._tables[next(iter(self._tables))]
            whole = torch.cat([cells_table(cells, self._dims, self._theta) for cells in parts])
            self._tables[key] = shard.take(whole).to(self._device)
        return self._tables[key]


def rotate_(x: Tensor, table: Tensor) -> None:
    """Rotate the first ``len(table)`` rows of ``x`` [..., rows, heads, head_dim] (float32) in place."""
    rows = x[..., : len(table), :, :]
    torch.view_as_complex(rows.view(*rows.shape[:-1], table.shape[-1], 2)).mul_(table)

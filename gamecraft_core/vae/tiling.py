"""Tiles of the VAE: how a clip is cut, and how the results are blended and joined.

Planning is pure arithmetic over lengths. A space tile starts every 3/4 of its size and is blended over 1/4; a time
tile takes one pixel or latent frame more than its size, and all but the first drop the first frame they produce.
The seams are linear ramps that start at weight 0 for the later tile. Order matters to the bits: the tile above
first, then the one on the left, both already blended themselves, cropped only afterwards. Tiling starts where a
length is strictly larger than a tile; time is cut outside, space inside. Source: the released pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from gamecraft_core.base.preset import VaeConfig

_OVERLAP = 0.25

Run = Callable[[Tensor], Tensor]
Window = tuple[int, int]


def windows(length: int, size: int, extra: int = 0) -> list[Window]:
    """Half-open windows of ``size`` (+ ``extra``) over ``length``, one every three quarters of ``size``."""
    stride = int(size * (1 - _OVERLAP))
    return [(start, min(start + size + extra, length)) for start in range(0, length, stride)]


@dataclass(frozen=True)
class Seam:
    """What happens to a tile of ``size`` output samples: the length of its ramps and how much of it is kept."""

    blend: int
    keep: int

    @staticmethod
    def of(size: int) -> Seam:
        blend = int(size * _OVERLAP)
        return Seam(blend=blend, keep=size - blend)


def blend_into(before: Tensor, tile: Tensor, extent: int, dim: int) -> None:
    """Ramp the start of ``tile`` along ``dim``, in place, from the end of ``before``; short tiles shorten it."""
    extent = min(before.shape[dim], tile.shape[dim], extent)
    if extent == 0:
        return
    shape = [1] * tile.dim()
    shape[dim] = extent
    weight = (torch.arange(extent, device=tile.device, dtype=torch.float32) / extent).to(tile.dtype).view(shape)
    start = tile.narrow(dim, 0, extent)
    end = before.narrow(dim, before.shape[dim] - extent, extent)
    start.mul_(weight).add_(end * (1 - weight))


def run_tiles(tiles: Sequence[Tensor], run: Run, batch: int) -> list[Tensor]:
    """``run`` of each tile; neighbours of one shape go through it up to ``batch`` at a time."""
    results: list[Tensor] = []
    for _, alike in groupby(tiles, key=lambda tile: tile.shape):
        same = list(alike)
        for start in range(0, len(same), batch):
            part = same[start : start + batch]
            results += run(torch.cat(part) if len(part) > 1 else part[0]).chunk(len(part))
    return results


def tile_space(x: Tensor, run: Run, size_in: int, size_out: int, batch: int = 1) -> Tensor:
    """Run over tiles of height and width, row by row; only two rows of results are alive at a time."""
    seam = Seam.of(size_out)
    above: list[Tensor] = []
    rows: list[Tensor] = []
    for top, bottom in windows(x.shape[3], size_in):
        row: list[Tensor] = []
        kept: list[Tensor] = []
        tiles = [x[:, :, :, top:bottom, left:right] for left, right in windows(x.shape[4], size_in)]
        for column, tile in enumerate(run_tiles(tiles, run, batch)):
            if above:
                blend_into(above[column], tile, seam.blend, dim=3)
            if row:
                blend_into(row[-1], tile, seam.blend, dim=4)
            row.append(tile)
            kept.append(tile[:, :, :, : seam.keep, : seam.keep])
        rows.append(torch.cat(kept, dim=4))
        above = row
    return torch.cat(rows, dim=3)


def tile_time(x: Tensor, run: Run, size_in: int, size_out: int) -> Tensor:
    """Run over tiles of time; the first tile keeps one frame more than the others."""
    seam = Seam.of(size_out)
    before: Tensor | None = None
    kept: list[Tensor] = []
    for start, end in windows(x.shape[2], size_in, extra=1):
        tile = run(x[:, :, start:end])
        if before is None:
            kept.append(tile[:, :, : seam.keep + 1])
        else:
            tile = tile[:, :, 1:]
            blend_into(before, tile, seam.blend, dim=2)
            kept.append(tile[:, :, : seam.keep])
        before = tile
    return torch.cat(kept, dim=2)


@dataclass(frozen=True)
class Tiling:
    """Tile sizes of one VAE in pixels and latents, along which axes it tiles, and how many tiles run at once.

    ``batch`` is the one number here that moves no result: nothing in the VAE looks across a batch.
    """

    pixels: int
    latents: int
    pixel_frames: int
    latent_frames: int
    space: bool
    time: bool
    batch: int = 1

    @staticmethod
    def of(config: VaeConfig) -> Tiling:
        """The sizes a config stands for; both axes on or off together."""
        return Tiling(
            pixels=config.sample_size,
            latents=config.sample_size // config.spatial_compression_ratio,
            pixel_frames=config.sample_tsize,
            latent_frames=config.sample_tsize // config.time_compression_ratio,
            space=config.tiling,
            time=config.tiling,
        )

    def encode(self, x: Tensor, run: Run) -> Tensor:
        """``run`` (pixels to moments) over the tiles of ``x`` [B, 3, F, H, W]."""
        return self._time(x, run, (self.pixel_frames, self.latent_frames), (self.pixels, self.latents))

    def decode(self, z: Tensor, run: Run) -> Tensor:
        """``run`` (latents to pixels) over the tiles of ``z`` [B, C, T, h, w]."""
        return self._time(z, run, (self.latent_frames, self.pixel_frames), (self.latents, self.pixels))

    def _time(self, x: Tensor, run: Run, time: tuple[int, int], space: tuple[int, int]) -> Tensor:
        def inner(part: Tensor) -> Tensor:
            if self.space and max(part.shape[3:]) > space[0]:
                return tile_space(part, run, *space, self.batch)
            return run(part)

        if self.time and x.shape[2] > time[0]:
            return tile_time(x, inner, *time)
        return inner(x)

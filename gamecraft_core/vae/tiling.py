"""Tiles of the VAE: how a clip is cut, and how the results are blended and joined.

Planning is pure arithmetic over lengths. A space tile starts every 3/4 of its size and is blended over 1/4; a time
tile takes one pixel or latent frame more than its size, and all but the first drop the first frame they produce.
The seams are linear ramps that start at weight 0 for the later tile. Order matters to the bits: the tile above
first, then the one on the left, both already blended themselves, cropped only afterwards. Tiling starts where a
length is strictly larger than a tile; time is cut outside, space inside. Source: the released pipeline.
Tiles know nothing of each other until they are joined, so who runs them, and where, is the caller's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor

from gamecraft_core.base.preset import VaeConfig

_OVERLAP = 0.25

Batch = Sequence[Tensor]
#: What runs one batch of tiles, joined; and what runs all of a call, and answers in the order of its batches.
Run = Callable[[Tensor], Tensor]
RunAll = Callable[[Iterable[Batch]], Iterator[Tensor]]
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

    def tiles(self, wanted: Window) -> slice:
        """The time tiles that ``wanted`` samples of the whole are made of: tile n begins to keep ``n * keep + 1``."""
        start, end = wanted
        first = max(start - 1, 0) // self.keep
        if first and start - 1 < first * self.keep + self.blend:
            first -= 1  # the ramp's other side
        return slice(first, max(end - 2, 0) // self.keep + 1)


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


def one_by_one(run: Run) -> RunAll:
    """Run batch after batch on the caller's thread, each as its answer is asked for."""

    def run_all(batches: Iterable[Batch]) -> Iterator[Tensor]:
        return (run(joined(batch)) for batch in batches)

    return run_all


def joined(batch: Batch) -> Tensor:
    return torch.cat(list(batch)) if len(batch) > 1 else batch[0]


def alike(tiles: Sequence[Tensor], most: int) -> Iterator[Batch]:
    """``tiles`` in their order, neighbours of one shape together, ``most`` at most."""
    for _, group in groupby(tiles, key=lambda tile: tile.shape):
        same = list(group)
        for start in range(0, len(same), most):
            yield same[start : start + most]


def cut_space(x: Tensor, size: int) -> list[list[Tensor]]:
    """The tiles of height and width, row by row."""
    rows, columns = windows(x.shape[3], size), windows(x.shape[4], size)
    return [[x[:, :, :, top:bottom, left:right] for left, right in columns] for top, bottom in rows]


def join_space(tiles: Iterator[Tensor], rows: int, columns: int, size: int) -> Tensor:
    """Blend the next ``rows`` of results; only two of them are alive at a time. ``tiles`` are written into."""
    seam = Seam.of(size)
    above: list[Tensor] = []
    done: list[Tensor] = []
    for _ in range(rows):
        row: list[Tensor] = []
        kept: list[Tensor] = []
        for column, tile in enumerate(islice(tiles, columns)):
            if above:
                blend_into(above[column], tile, seam.blend, dim=3)
            if row:
                blend_into(row[-1], tile, seam.blend, dim=4)
            row.append(tile)
            kept.append(tile[:, :, :, : seam.keep, : seam.keep])
        done.append(torch.cat(kept, dim=4))
        above = row
    return torch.cat(done, dim=3)


def cut_time(x: Tensor, size: int) -> list[Tensor]:
    return [x[:, :, start:end] for start, end in windows(x.shape[2], size, extra=1)]


def join_time(tiles: Iterable[Tensor], size: int) -> Tensor:
    """Blend results along time, the first of which keeps one frame more than the others. They are written into."""
    seam = Seam.of(size)
    before: Tensor | None = None
    kept: list[Tensor] = []
    for tile in tiles:
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

    Nothing in the VAE looks across a ``batch``, but kernels are chosen by its size: last bits may differ.
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

    def encode(self, x: Tensor, run_all: RunAll) -> Tensor:
        """Pixels [B, 3, F, H, W] to moments, which ``run_all`` makes of the tiles."""
        return self._tiled(x, run_all, (self.pixel_frames, self.latent_frames), (self.pixels, self.latents))

    def decode(self, z: Tensor, run_all: RunAll, wanted: Window | None = None) -> Tensor:
        """Latents [B, C, T, h, w] to pixels, of all or of ``wanted`` frames, which ``run_all`` makes of the tiles."""
        return self._tiled(z, run_all, (self.latent_frames, self.pixel_frames), (self.latents, self.pixels), wanted)

    def _tiled(
        self, x: Tensor, run_all: RunAll, time: tuple[int, int], space: tuple[int, int], wanted: Window | None = None
    ) -> Tensor:
        """Cut ``x`` by the first size of each pair, run everything in one go, and join it by the second.

        Of ``wanted`` frames the bits are those of the whole, but other time tiles than theirs do not run.
        """
        in_time = self.time and x.shape[2] > time[0]
        in_space = self.space and max(x.shape[3:]) > space[0]
        parts = cut_time(x, time[0]) if in_time else [x]
        skipped = 0
        if in_time and wanted is not None:
            seam = Seam.of(time[1])
            tiles = seam.tiles(wanted)
            parts, skipped = parts[tiles], tiles.start * seam.keep
        grids = [cut_space(part, space[0]) if in_space else [[part]] for part in parts]
        batches = [batch for rows in grids for row in rows for batch in alike(row, self.batch)]
        results = _separate(batches, run_all)
        rows, columns = len(grids[0]), len(grids[0][0])
        whole = (join_space(results, rows, columns, space[1]) if in_space else next(results) for _ in parts)
        made = join_time(whole, time[1]) if in_time else next(whole)
        return made if wanted is None else made[:, :, wanted[0] - skipped : wanted[1] - skipped]


def _separate(batches: Sequence[Batch], run_all: RunAll) -> Iterator[Tensor]:
    """The result of each tile."""
    for batch, results in zip(batches, run_all(batches), strict=True):
        yield from results.chunk(len(batch))

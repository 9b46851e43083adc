"""Work of the VAE, tile by tile as it is cut, overlap included: exact counts of convolutions and attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from gamecraft_core.base.preset import Preset, VaeConfig
from gamecraft_core.costs.family import MANY, family_work
from gamecraft_core.costs.work import Work
from gamecraft_core.timeline.spans import Span
from gamecraft_core.vae.model import Factor, down_factors, up_factors
from gamecraft_core.vae.tiling import Seam, Tiling, windows

Size = tuple[int, int, int]


def decode_work(preset: Preset, devices: int = 1, *, continuing: bool = True, chunks: int = MANY) -> Work:
    """What settling a chunk of a session of ``chunks`` decodes; with several ``devices``, the busiest of them.

    It gets one tile in so many, of each piece.
    """
    video, ratio, tiling = preset.video, preset.vae.spatial_compression_ratio, Tiling.of(preset.vae)
    own, work = family_work(preset), Work()
    for piece in own.decoded(*own.place(continuing=continuing, chunks=chunks)):
        size = (piece.latents, video.height // ratio, video.width // ratio)
        tiles = cut(size, tiling.latent_frames, tiling.latents, tiling, piece.wanted)
        work += _busiest(tiles, preset.vae, _decoded, devices)
    return work


def encode_work(preset: Preset, frames: int = 1) -> Work:
    """An image (one frame) or a clip encoded."""
    tiling = Tiling.of(preset.vae)
    tiles = cut((frames, preset.video.height, preset.video.width), tiling.pixel_frames, tiling.pixels, tiling)
    return _busiest(tiles, preset.vae, _encoded, 1)


def cut(size: Size, frames: int, side: int, tiling: Tiling, wanted: Span | None = None) -> list[Size]:
    """Sizes of the tiles that ``tiling`` makes of ``size`` with tiles of ``frames`` and ``side``.

    Where latents are cut, only those that have a part in the ``wanted`` pixel frames.
    """
    in_time, in_space = tiling.time and size[0] > frames, tiling.space and max(size[1:]) > side
    spans = windows(size[0], frames, extra=1) if in_time else [(0, size[0])]
    if in_time and wanted is not None:
        spans = spans[Seam.of(tiling.pixel_frames).tiles(wanted)]
    rows = windows(size[1], side) if in_space else [(0, size[1])]
    columns = windows(size[2], side) if in_space else [(0, size[2])]
    return [(t[1] - t[0], y[1] - y[0], x[1] - x[0]) for t in spans for y in rows for x in columns]


def _busiest(tiles: list[Size], config: VaeConfig, work: Callable[[VaeConfig, Size], Work], devices: int) -> Work:
    """Devices take the next tile as they are free, so that the busiest has a share rounded up to whole tiles."""
    total = Work()
    for tile in tiles:
        total += work(config, tile)
    return total * (-(-len(tiles) // devices) / len(tiles))


@cache
def _decoded(config: VaeConfig, size: Size) -> Work:
    widths, latent = config.block_out_channels[::-1], config.latent_channels
    work = _conv(latent, latent, size, kernel=1) + _conv(latent, widths[0], size) + _middle(config, widths[0], size)
    before = widths[0]
    for width, factor in zip(widths, up_factors(config), strict=True):
        work += _resnets(before, width, config.layers_per_block + 1, size)
        if factor != (1, 1, 1):
            size = _grown(size, factor)
            work += _conv(width, width, size)
        before = width
    return work + _conv(before, config.out_channels, size)


@cache
def _encoded(config: VaeConfig, size: Size) -> Work:
    widths, moments = config.block_out_channels, 2 * config.latent_channels
    work = _conv(config.in_channels, widths[0], size)
    before = widths[0]
    for width, factor in zip(widths, down_factors(config), strict=True):
        work += _resnets(before, width, config.layers_per_block, size)
        if factor != (1, 1, 1):
            size = _shrunk(size, factor)
            work += _conv(width, width, size)
        before = width
    work += _middle(config, before, size)
    return work + _conv(before, moments, size) + _conv(moments, moments, size, kernel=1)


def _grown(size: Size, factor: Factor) -> Size:
    return 1 + (size[0] - 1) * factor[0], size[1] * factor[1], size[2] * factor[2]


def _shrunk(size: Size, factor: Factor) -> Size:
    t, h, w = ((length - 1) // stride + 1 for length, stride in zip(size, factor, strict=True))
    return t, h, w


def _conv(channels_in: int, channels_out: int, out: Size, kernel: int = 3) -> Work:
    return Work(conv=2 * kernel**3 * channels_in * channels_out * out[0] * out[1] * out[2])


def _resnets(before: int, width: int, count: int, size: Size) -> Work:
    work = _conv(before, width, size) + _conv(width, width, size) * (2 * count - 1)
    return work + _conv(before, width, size, kernel=1) if before != width else work


def _middle(config: VaeConfig, width: int, size: Size) -> Work:
    work = _resnets(width, width, 2, size)
    if not config.mid_block_add_attention:
        return work
    frames, area = size[0], size[1] * size[2]
    rows = frames * area
    pairs = area * area * frames * (frames + 1) // 2 if config.mid_block_causal_attn else rows * rows
    return work + Work(matmul=2 * 4 * rows * width * width, attention=4 * pairs * width)

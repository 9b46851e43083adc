"""Work of GameCraft's transformer, from sizes alone: exact counts of its matmuls, attention and exchanges.

A test holds every count against PyTorch's own counter over the real code on the meta device. Norms, rotations and
activations are not counted: they are part of what a card's stated efficiency leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from gamecraft_core.base.preset import DitConfig, Preset
from gamecraft_core.costs.work import Work
from gamecraft_core.sampling.guidance import is_guided
from gamecraft_core.timeline.frames import SPATIAL_RATIO, clip_latents
from gamecraft_core.timeline.schedule import cached_steps

_FREQUENCIES = 256
_REFINER_BLOCKS = 2
_REFINER_RATIO = 4
_ITEM = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Sequence:
    """Rows of one forward: ``total`` of video, the last ``new`` of them predicted, and ``text`` beside them."""

    total: int
    new: int
    text: int

    @staticmethod
    def of(preset: Preset, *, continuing: bool) -> Sequence:
        """A chunk after a chunk's worth of history, or after an image, with a prompt of the greatest length."""
        video, (t, h, w) = preset.video, preset.dit.patch_size
        new = clip_latents(video.chunk_frames)
        frame = (video.height // SPATIAL_RATIO // h) * (video.width // SPATIAL_RATIO // w)
        return Sequence(((new if continuing else 1) + new) // t * frame, new // t * frame, preset.text.max_tokens)


@dataclass(frozen=True, slots=True)
class _Share:
    """What the busiest of ``world`` ranks holds of a sequence: the last rank has the most predicted rows."""

    local: int
    new: int
    heads: int

    @staticmethod
    def of(rows: Sequence, config: DitConfig, world: int) -> _Share:
        local = -(-rows.total // world)
        return _Share(local, min(local, rows.new), -(-config.num_heads // world))


def chunk_work(preset: Preset, *, continuing: bool, world: int = 1, split: bool = False, cache: bool = False) -> Work:
    """One denoise on the busiest of ``world`` ranks; with ``split`` each half of them runs one branch of guidance.

    A first chunk also makes its prompt's tables. ``cache`` is the step cache of the 50-step schedule.
    """
    guided = is_guided(preset.sampling.guidance)
    split = split and guided
    degree, branches = (world // 2, 1) if split else (world, 2 if guided else 1)
    rows, steps = Sequence.of(preset, continuing=continuing), preset.sampling.steps
    reused = len(cached_steps(steps)) if cache else 0
    full = forward_work(preset.dit, rows, degree, _ITEM[preset.runtime.dtype])
    last = _last(preset.dit, rows, degree, _ITEM[preset.runtime.dtype])
    work = full * (branches * (steps - reused)) + last * (branches * reused)
    share = _Share.of(rows, preset.dit, degree)
    work += patches_work(preset.dit, share.local, share.new, steps - reused) + camera_work(preset) * branches
    if split:
        work += Work(link_bytes=steps * 4 * preset.dit.out_channels * _latents(preset), exchanges=steps)
    if not continuing:
        work += conditions_work(preset.dit, rows.text, steps, _ITEM[preset.runtime.dtype]) * branches
    return work


def forward_work(config: DitConfig, rows: Sequence, world: int = 1, item: int = 2) -> Work:
    """All blocks and the final layer, once, on the busiest rank; activations that travel have ``item`` bytes."""
    share, hidden = _Share.of(rows, config, world), config.hidden_size
    joint, own = rows.total + rows.text, share.heads * config.head_dim
    inner = int(hidden * config.mlp_width_ratio)
    block = Work(
        matmul=2 * (share.local + rows.text) * hidden * (4 * hidden + 2 * inner),
        attention=4 * joint * joint * own,
        link_bytes=_sent(world, own, 3 * share.local + share.local + rows.text, item),
        exchanges=2 * (world > 1),
    )
    blocks = config.depth_double_blocks + config.depth_single_blocks - 1
    return block * blocks + _last(config, rows, world, item)


def _last(config: DitConfig, rows: Sequence, world: int, item: int) -> Work:
    """The last single block, of which only the predicted rows are asked, the final layer and the gathering of rows."""
    share, hidden = _Share.of(rows, config, world), config.hidden_size
    own, inner = share.heads * config.head_dim, int(hidden * config.mlp_width_ratio)
    t, h, w = config.patch_size
    values = config.out_channels * t * h * w
    linear = share.new * hidden * (hidden + inner + hidden + inner + values)
    return Work(
        matmul=2 * (linear + (share.local + rows.text) * hidden * 2 * hidden),
        attention=4 * rows.new * (rows.total + rows.text) * own,
        link_bytes=_sent(world, own, 4 * share.local, item) + (world - 1) * share.local * values * 4,
        exchanges=3 * (world > 1),
    )


def _sent(world: int, own: int, rows: int, item: int) -> float:
    """Bytes that leave a rank which hands ``rows`` rows of ``own`` features to every other."""
    return (world - 1) * rows * own * item


def patches_work(config: DitConfig, local: int, new: int, steps: int) -> Work:
    """Patch embedding: what history, mask and bias give, once, and what the latents add, every step."""
    t, h, w = config.patch_size
    values, hidden = config.in_channels * t * h * w, config.hidden_size
    masked = (2 * config.in_channels + 1) * t * h * w
    return Work(matmul=2 * hidden * (local * masked + steps * new * values))


def conditions_work(config: DitConfig, text: int, steps: int, item: int = 2) -> Work:
    """Refined text and modulation vectors of one prompt at every step; the modulation weights are read once."""
    hidden, inner = config.hidden_size, _REFINER_RATIO * config.hidden_size
    timestep = steps * hidden * (_FREQUENCIES + hidden)
    pooled = hidden * (config.text_states_dim_2 + hidden)
    pooled += config.guidance_embed * hidden * (_FREQUENCIES + hidden)
    refiner = text * config.text_states_dim * hidden + timestep + hidden * (config.text_states_dim + hidden)
    refiner += steps * _REFINER_BLOCKS * hidden * (text * (4 * hidden + 2 * inner) + 2 * hidden)
    tables = hidden * hidden * (12 * config.depth_double_blocks + 3 * config.depth_single_blocks + 2)
    return Work(
        matmul=2 * (timestep + pooled + refiner + steps * tables),
        attention=4 * steps * _REFINER_BLOCKS * text * text * hidden,
        weight_bytes=tables * item,
    )


def camera_work(preset: Preset) -> Work:
    """The camera encoder over a chunk's Plücker maps, and over the one patch of zeros that history sees."""
    video, config = preset.video, preset.dit
    down, (_, h, w) = config.camera_down_coef, config.patch_size
    chunk = _camera(config, video.chunk_frames, video.height // down, video.width // down, h * w)
    return chunk + _camera(config, 1, w, w, h * w)


def _camera(config: DitConfig, frames: int, height: int, width: int, patch: int) -> Work:
    wide, pixels, out = config.camera_in_channels * config.camera_down_coef**2, height * width, config.in_channels
    first, second = wide // 2, wide // 4
    half = frames // 2 + frames % 2
    quarter = half // 2 + half % 2
    convolved = frames * wide * first + half * first * second + quarter * second * out
    embedded = quarter * out * config.hidden_size  # a value of each pixel of a patch, once
    return Work(conv=2 * pixels * (convolved + embedded))


def _latents(preset: Preset) -> int:
    video = preset.video
    size = (video.height // SPATIAL_RATIO) * (video.width // SPATIAL_RATIO)
    return clip_latents(video.chunk_frames) * size

"""Work of one chunk's denoise: the trunk's forwards, and what the family adds to them."""

from __future__ import annotations

from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.dit import Share, conditions_work, forward_work, last_work
from gamecraft_core.costs.family import family_work
from gamecraft_core.costs.work import Work
from gamecraft_core.sampling.guidance import is_guided
from gamecraft_core.timeline.frames import SPATIAL_RATIO
from gamecraft_core.timeline.schedule import cached_steps

_ITEM = {"float32": 4, "bfloat16": 2, "float16": 2}


def chunk_work(preset: Preset, *, continuing: bool, world: int = 1, split: bool = False, cache: bool = False) -> Work:
    """One denoise on the busiest of ``world`` ranks; with ``split`` each half of them runs one branch of guidance.

    A first chunk also makes its prompt's tables. ``cache`` is the step cache of the 50-step schedule. What TeaCache
    leaves out depends on the video, and is not left out here.
    """
    guided = is_guided(preset.sampling.guidance)
    split = split and guided
    degree, branches = (world // 2, 1) if split else (world, 2 if guided else 1)
    own, steps, item = family_work(preset), preset.sampling.steps, _ITEM[preset.runtime.dtype]
    rows = own.rows(continuing=continuing)
    reused = len(cached_steps(steps)) if cache else 0
    full, last = forward_work(preset.dit, rows, degree, item), last_work(preset.dit, rows, degree, item)
    work = full * (branches * (steps - reused)) + last * (branches * reused)
    share = Share.of(rows, preset.dit, degree)
    work += own.patches(share.local, share.new, steps - reused) + own.conditioning() * branches
    if split:
        latents = own.new * (preset.video.height // SPATIAL_RATIO) * (preset.video.width // SPATIAL_RATIO)
        work += Work(link_bytes=steps * 4 * preset.dit.out_channels * latents, exchanges=steps)
    if not (continuing and own.continues):
        work += conditions_work(preset.dit, preset.text.max_tokens, steps, item) * branches
    return work

"""A session's size in pixels, and the shift that goes with it."""

from __future__ import annotations

from gamecraft_core.base.preset import Preset
from gamecraft_core.timeline.frames import SPATIAL_RATIO
from gamecraft_core.timeline.schedule import shift_of_tokens
from gamecraft_core.timeline.sections import video_tokens, window_of
from orchestrator.manifest.fields import Fields

#: Pixels a side must be a multiple of: the VAE's 8 times the transformer's patch of 2.
SIZE_STEP = 16
MAX_SIDE = 8192

Size = tuple[int, int]


def read_size(fields: Fields, preset: Preset) -> Size:
    """(height, width): as the row says, or the preset's."""
    noted = len(fields.problems)
    video = preset.video
    height = fields.integer("height", video.height, SIZE_STEP, MAX_SIDE)
    width = fields.integer("width", video.width, SIZE_STEP, MAX_SIDE)
    problem = size_problem(height, width, video.max_pixels)
    if problem and len(fields.problems) == noted:
        fields.refuse(*problem)
    return height, width


def size_problem(height: int, width: int, max_pixels: int) -> tuple[str, str, str] | None:
    """(field, reason, remedy) where no session can have this size."""
    for name, side in (("height", height), ("width", width)):
        if side % SIZE_STEP:
            below = max(SIZE_STEP, side - side % SIZE_STEP)
            near = " or ".join(str(value) for value in sorted({below, side - side % SIZE_STEP + SIZE_STEP}))
            return name, f"{side} is not a multiple of {SIZE_STEP}", f"use {near}"
    if height * width > max_pixels:
        return "height", f"{height} x {width} is more than {max_pixels} pixels", "use a smaller height or width"
    return None


def usual_shift(preset: Preset, size: Size) -> float:
    """The shift of a row that gives none."""
    if preset.sampling.shift_rule == "fixed":
        return preset.sampling.shift
    height, width = (side // SPATIAL_RATIO for side in size)
    return shift_of_tokens(video_tokens(window_of(preset.video.chunk_frames), height, width)[-1])

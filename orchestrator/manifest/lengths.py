"""How long a session is, as its row says it: a camera's actions, the frames of a whole video, or seconds.

Each way has columns of its own; those of the others are refused, so that nothing that a row asks for is overlooked.
"""

from __future__ import annotations

from collections.abc import Callable

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.family import Family, Length
from gamecraft_core.base.preset import Preset, VideoConfig
from gamecraft_core.base.spec import Control, NoControl
from gamecraft_core.timeline.frames import CHUNK_FRAMES, check_chunk_frames
from gamecraft_core.timeline.sections import section_count, window_of
from gamecraft_core.timeline.whole_video import MOST_FRAMES, plan_video
from orchestrator.manifest.actions import FIELD, MAX_CHUNKS, LoadPoses, read_controls
from orchestrator.manifest.fields import Fields, as_integer, shown

#: What a row may say of its length, by the family's way.
COLUMNS: dict[Length, tuple[str, ...]] = {
    "actions": (FIELD, "chunk_frames"),
    "frames": ("frames",),
    "seconds": ("seconds",),
}

#: Frames of the shortest video after an image, which is the first of them.
_AFTER_AN_IMAGE = 5

#: Reads a pose file, of whose rows so many frames are needed.
Poses = Callable[[str, int, str], tuple[tuple[float, ...], ...]]


def read_length(
    fields: Fields, preset: Preset, family: Family, size: tuple[int, int], poses: Poses
) -> tuple[tuple[Control, ...], int]:
    """A control for each chunk, and the new frames of one; what is wrong is noted in ``fields``."""
    for other in (column for way, columns in COLUMNS.items() if way != family.length for column in columns):
        if fields.has(other):
            remedy = f"leave it out; its sessions take {' and '.join(COLUMNS[family.length])}"
            fields.refuse(other, f"sessions of {preset.name} have none", remedy)
    match family.length:
        case "actions":
            frames = _chunk_frames(fields, preset)
            load: LoadPoses = lambda path, place: poses(path, frames, place)  # noqa: E731
            return read_controls(fields, preset.control, load), frames
        case "frames":
            return (NoControl(),), _frames(fields, preset, family, size)
        case "seconds":
            return (NoControl(),) * _sections(fields, preset.video), preset.video.chunk_frames


def check_length(preset: Preset, length: Length) -> None:
    """Raise BadInput where a preset's own length could not be that of a session."""
    video = preset.video
    try:
        match length:
            case "actions":
                check_chunk_frames(video.chunk_frames)
            case "frames":
                plan_video(video.chunk_frames, video.height, video.width)
            case "seconds":
                window_of(video.chunk_frames)
    except BadInput as error:
        raise BadInput(error.message, field="video.chunk_frames", remedy=error.remedy) from error
    if (video.layout == "tiled") is (length == "seconds"):
        remedy = "use forward or inverted where length is in seconds, else tiled"
        raise BadInput(f"chunks of this family cannot lie {video.layout}", field="video.layout", remedy=remedy)
    if preset.sampling.shift_rule == "tokens" and length != "seconds":
        raise BadInput("shifts by tokens are those of sections", field="sampling.shift_rule", remedy="use fixed")


def _chunk_frames(fields: Fields, preset: Preset) -> int:
    value = fields.get("chunk_frames")
    frames = preset.video.chunk_frames if value is None else as_integer(value)
    if frames in CHUNK_FRAMES:
        return frames
    remedy = f"use {' or '.join(map(str, CHUNK_FRAMES))}"
    fields.refuse("chunk_frames", f"a chunk of {shown(value)} frames is not possible", remedy)
    return preset.video.chunk_frames


def _frames(fields: Fields, preset: Preset, family: Family, size: tuple[int, int]) -> int:
    fewest = 1 if "none" in family.starts else _AFTER_AN_IMAGE
    frames = fields.integer("frames", preset.video.chunk_frames, fewest, MOST_FRAMES)
    try:
        plan_video(frames, *size)
    except BadInput as error:
        if error.field == "frames":  # the sides have been looked at
            fields.caught(error, "frames")
    return frames


def _sections(fields: Fields, video: VideoConfig) -> int:
    most = MAX_CHUNKS * video.chunk_frames / video.fps
    asked = fields.number("seconds", video.chunks * video.chunk_frames / video.fps, 0.0, most, open_low=True)
    return section_count(asked, video.chunk_frames, video.fps)

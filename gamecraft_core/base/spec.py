"""What a caller asks for: one session, its start and its controls.

Values only. They are built by the manifest reader or the API after validation, so everything downstream may
trust them: sizes are legal, speeds are in range, pose rows are finite.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

#: The eight actions, in the family's own order.
ACTIONS = ("w", "a", "s", "d", "left_rot", "right_rot", "up_rot", "down_rot")

#: One row of a pose file: index, fx, fy, cx, cy, 0, 0, then a 3x4 world-to-camera matrix row by row.
POSE_ROW_LENGTH = 19

Priority = Literal["interactive", "batch"]


@dataclass(frozen=True, slots=True)
class ActionControl:
    """One action held for a whole chunk. Translations: units a chunk (before the factor 10); rotations: degrees."""

    action: str
    speed: float

    def describe(self) -> dict[str, Any]:
        return {"action": self.action, "speed": self.speed}


@dataclass(frozen=True, slots=True)
class MotionControl:
    """Several keys held together for a whole chunk, and the mouse.

    ``keys`` are (action, speed) pairs as in ActionControl; ``mouse`` is degrees a chunk (right +, up +). The camera
    goes straight along the sum of the moves, in the axes it starts with, while it turns by the sum of the turns.
    """

    keys: tuple[tuple[str, float], ...]
    mouse: tuple[float, float] = (0.0, 0.0)

    def describe(self) -> dict[str, Any]:
        keys = [{"action": action, "speed": speed} for action, speed in self.keys]
        return {"keys": keys, "mouse": list(self.mouse)}


@dataclass(frozen=True, slots=True)
class PoseControl:
    """A given camera path: ``rows`` are the file's rows of 19 numbers, at least one per new pixel frame."""

    path: str
    rows: tuple[tuple[float, ...], ...] = field(repr=False)

    def describe(self) -> dict[str, Any]:
        return {"poses": self.path}


@dataclass(frozen=True, slots=True)
class NoControl:
    """What a chunk of a family without a camera is asked: to be made."""

    def describe(self) -> dict[str, Any]:
        return {}


Control = ActionControl | MotionControl | PoseControl | NoControl

#: What a session begins from: nothing but its prompt, an image, or a video whose last frames are its history.
StartKind = Literal["none", "image", "video"]

#: How chunks lie in time. ``tiled``: end to end. The others overlap, and pixels change until the next chunk has
#: settled them: ``forward`` from the beginning on, ``inverted`` from the end back. See ``timeline/spans.py``.
Layout = Literal["tiled", "forward", "inverted"]


@dataclass(frozen=True, slots=True)
class Start:
    """What the session begins from; ``uri`` is "" for a start of kind "none"."""

    kind: StartKind
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """One continuing video: start, prompt, controls and every setting resolved (nothing left to a default).

    There is a chunk for each of ``controls``. ``open``: more may come while it is under way, and somebody says when it
    is finished. ``embedded_guidance`` is for models that are told it; ``tea_cache`` is the change of the input from
    which on the blocks run again, 0 where they run at every step. ``keeps_start``: every chunk is given the encoded
    start, not the first one alone.
    """

    session_id: str
    preset: str
    start: Start
    controls: tuple[Control, ...]
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    shift: float
    height: int
    width: int
    chunk_frames: int = 33
    fps: int = 25
    layout: Layout = "tiled"
    keeps_start: bool = False
    embedded_guidance: float = 6.0
    guidance_rescale: float = 0.0
    flow_reverse: bool = True
    tea_cache: float = 0.0
    tenant: str = "default"
    priority: Priority = "batch"
    row: int = 0
    open: bool = False

    @property
    def num_chunks(self) -> int:
        return len(self.controls)

    @property
    def num_frames(self) -> int:
        """Pixel frames in the finished video. The start is part of it where chunks overlap: it is one frame more."""
        return self.chunk_frames * len(self.controls) + (self.layout != "tiled")

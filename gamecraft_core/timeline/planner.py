"""What one GameCraft chunk consists of: history, new frames, where they lie in the session's video.

Whether a chunk starts from an image or continues follows from its history, never from the total: ten latent frames
are 1 + 9 after an image with 33-frame chunks, and 5 + 5 in a continuation with 17-frame chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gamecraft_core.base.errors import BadInput
from gamecraft_core.timeline.frames import check_chunk_frames, clip_latents, rope_frames

#: Pixel frames of zero camera that stand for the start image: the camera encoder pools four of them to one latent.
_IMAGE_CAMERA_FRAMES = 4


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """One chunk's layout. ``span``: its pixel frames in the session's video, half open."""

    index: int
    kind: Literal["image", "continuation"]
    history_latents: int
    new_latents: int
    span: tuple[int, int]
    zero_camera_frames: int

    @property
    def total_latents(self) -> int:
        return self.history_latents + self.new_latents

    @property
    def rope_frames(self) -> int:
        """Pixel length that names the rotary table of this layout."""
        return rope_frames(self.total_latents)


def plan_chunk(index: int, chunk_frames: int, history_latents: int) -> ChunkPlan:
    """Plan chunk ``index`` whose history has ``history_latents`` latent frames: 1 (an image) or a chunk's worth."""
    new_latents = clip_latents(check_chunk_frames(chunk_frames))
    if history_latents not in (1, new_latents):
        raise BadInput(
            f"a history of {history_latents} latent frames fits no chunk of {chunk_frames} pixel frames",
            field="history",
            remedy=f"give 1 latent frame (an image) or {new_latents} (the last {chunk_frames} pixel frames)",
        )
    image = history_latents == 1
    if image and index > 0:
        raise ValueError(f"chunk {index} continues a session and needs the {new_latents} latents of the chunk before")
    return ChunkPlan(
        index=index,
        kind="image" if image else "continuation",
        history_latents=history_latents,
        new_latents=new_latents,
        span=(index * chunk_frames, (index + 1) * chunk_frames),
        zero_camera_frames=_IMAGE_CAMERA_FRAMES if image else chunk_frames,
    )

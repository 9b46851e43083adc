"""Frame counts: how many latent frames a number of pixel frames becomes, and which numbers are legal.

A causal VAE encodes a clip of ``ratio * n + 1`` pixel frames to ``n + 1`` latent frames: the first pixel frame stands
alone. What the transformer sees is one such clip, or two of them joined (history and new frames, each encoded on its
own), so with ``clips`` in (1, 2) a legal count is ``ratio * n + clips`` and gives ``n + clips`` latents. That one rule
yields 33 -> 9, 37 -> 10 and 69 -> 18 as well as 34 -> 10 and 66 -> 18, for which the published code has the special
formula ``(frames - 2) // 4 + 2``.
"""

from __future__ import annotations

from typing import Literal, get_args

from gamecraft_core.base.errors import BadInput

Compression = Literal["884", "888", "none"]

#: Pixels per latent, each way.
SPATIAL_RATIO = 8

#: Pixel frames per latent frame, after the first one of each clip.
TIME_RATIO: dict[Compression, int] = {"884": 4, "888": 8, "none": 1}

#: Pixel frames a chunk may have.
CHUNK_FRAMES = (33, 17)

_MAX_CLIPS = 2


def clip_latents(pixel_frames: int, compression: Compression = "884") -> int:
    """Latent frames of one clip, encoded in one piece; BadInput with the neighbours if it cannot be."""
    return _latents(pixel_frames, compression, max_clips=1)


def latent_frames(pixel_frames: int, compression: Compression = "884") -> int:
    """Latent frames of a sequence of one clip or two joined clips; BadInput with the neighbours if it is neither."""
    return _latents(pixel_frames, compression, max_clips=_MAX_CLIPS)


def pixel_frames(latents: int, compression: Compression = "884", clips: int = 1) -> int:
    """Pixel frames behind ``latents`` latent frames that were encoded as ``clips`` separate clips."""
    if latents < clips or clips < 1:
        raise BadInput(
            f"{latents} latent frames cannot hold {clips} clip(s)", remedy="use at least one latent frame a clip"
        )
    return TIME_RATIO[_known(compression)] * (latents - clips) + clips


def rope_frames(latents: int) -> int:
    """The pixel length by which the published code names a rotary table: 10 -> 37, 18 -> 69, 6 -> 21, 9 -> 33."""
    return pixel_frames(latents)


def check_chunk_frames(chunk_frames: int) -> int:
    """Return ``chunk_frames`` if a session's chunks may have that many pixel frames, else raise BadInput."""
    if chunk_frames not in CHUNK_FRAMES:
        raise BadInput(f"a chunk of {chunk_frames} frames is not possible", field="chunk_frames", remedy="use 33 or 17")
    return chunk_frames


def check_session_compression(compression: Compression) -> None:
    """Raise BadInput unless sessions can run with this VAE; 888 and none serve the VAE and the frame maths alone."""
    if _known(compression) != "884":
        raise BadInput(
            f"a session cannot use time compression {compression}: the camera encoder pools time by exactly 4,"
            " so its tokens would not match the latent frames",
            field="vae.time_compression_ratio",
            remedy="use an 884 VAE (time_compression_ratio 4)",
        )


def _latents(frames: int, compression: Compression, max_clips: int) -> int:
    ratio = TIME_RATIO[_known(compression)]
    if ratio == 1 and frames >= 1:
        return frames
    for clips in range(1, max_clips + 1):
        if frames >= clips and (frames - clips) % ratio == 0:
            return (frames - clips) // ratio + clips
    near = _neighbours(frames, ratio, 1)
    remedy = f"nearest legal counts: {near} ({ratio}n+1)"
    if max_clips > 1:
        remedy += f"; as two joined clips {_neighbours(frames, ratio, 2)} ({ratio}n+2)"
    raise BadInput(f"{frames} pixel frames are not possible with {compression}", field="frames", remedy=remedy)


def _neighbours(frames: int, ratio: int, clips: int) -> str:
    """The closest counts below and above ``frames`` of the form ``ratio * n + clips``, as text."""
    if frames < clips:
        return str(clips)
    below = frames - (frames - clips) % ratio
    return f"{below} or {below + ratio}"


def _known(compression: Compression) -> Compression:
    if compression not in get_args(Compression):
        raise BadInput(f"unknown time compression {compression!r}", field="compression", remedy="use 884, 888 or none")
    return compression

"""FramePack's sections: how many a video has, what each is shown of the frames around it, and where these lie in time.

A section makes a window of latent frames and is one chunk. It is shown the start image and the nineteen latent frames
between which and the start it works, the nearer the finer: one at full resolution, two in cells of 2 each way, sixteen
in cells of 4. Forward order goes on after the newest frame; inverted order goes back from the end of the video, and
leaves a padding of unmade frames between the start and its window. What is shown has one size at any length, so every
section costs the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.spec import Layout
from gamecraft_core.timeline.frames import TIME_RATIO

#: Latent frames shown at full resolution beside the start, in cells of 2 and in cells of 4.
NEAR, MIDDLE, FAR = 1, 2, 16
#: Latent frames that a section looks back on.
REACH = NEAR + MIDDLE + FAR
#: Windows of latents that decoding needs: a section's own, and of the two before it what lies under the cross-fades.
_DECODED = 3
#: The frame rate by which FramePack turns seconds into sections.
FPS = 30
#: Heights of the sizes at resolution 640, lowest first; their widths are the same numbers from the other end.
_HEIGHTS = (416, 448, 480, 512, 544, 576, 608, 640, 672, 704, 768, 832, 864, 960)
_BUCKET_RESOLUTION, _BUCKET_STEP = 640, 16


@dataclass(frozen=True, slots=True)
class Indices:
    """Places in time of a section's latent frames: its window's, and of those that it is shown at each resolution."""

    window: range
    near: tuple[int, ...]
    middle: range
    far: range


@dataclass(frozen=True, slots=True, eq=False)
class CleanInputs:
    """Shown to a section: ``near`` [16, 2, h, w] (start first), ``middle`` [16, 2, h, w] and ``far`` [16, 16, h, w]."""

    near: FloatArray
    middle: FloatArray
    far: FloatArray
    indices: Indices


def window_of(chunk_frames: int) -> int:
    """Latent frames of a section of ``chunk_frames`` new pixel frames."""
    ratio = TIME_RATIO["884"]
    if chunk_frames < ratio or chunk_frames % ratio:
        raise BadInput(
            f"a section of {chunk_frames} frames", field="chunk_frames", remedy="give 4 a latent frame, such as 36"
        )
    return chunk_frames // ratio


def section_count(seconds: float, chunk_frames: int, fps: int = FPS) -> int:
    """Sections of a video of about ``seconds``: the nearest number, of two equally near ones the even one, at least 1.

    The video has ``chunk_frames`` times that many frames, and one more.
    """
    return max(1, round(seconds * fps / chunk_frames))


def paddings(sections: int) -> tuple[int, ...]:
    """Windows left unmade between the start and each section's own, in inverted order: more than 3 are never shown."""
    if sections > 4:
        return (3, *(2,) * (sections - 3), 1, 0)
    return tuple(reversed(range(sections)))


def indices(layout: Layout, window: int, index: int, sections: int) -> Indices:
    """Those of section ``index`` of ``sections``; in forward order all sections have the same."""
    if not 0 <= index < sections:
        raise ValueError(f"there is no section {index} of {sections}")
    if layout == "forward":
        far, middle, near = range(1, 1 + FAR), range(1 + FAR, 1 + FAR + MIDDLE), REACH
        return Indices(range(near + 1, near + 1 + window), (0, near), middle, far)
    first = 1 + paddings(sections)[index] * window
    near = first + window
    middle = range(near + NEAR, near + NEAR + MIDDLE)
    return Indices(range(first, near), (0, near), middle, range(middle.stop, middle.stop + FAR))


def carried(window: int) -> int:
    """Latent frames of a section's payload: what the next one looks back on, and what its decode needs."""
    return max(REACH, _DECODED * window)


def carry(
    layout: Layout, window: int, history: FloatArray | None, new: FloatArray, start_latent: FloatArray
) -> FloatArray:
    """The payload of the section that made ``new`` [16, window, h, w] after the payload ``history``.

    The latent frames nearest to the next section in time order, zeros where there is nothing yet. ``start_latent``
    [16, 1, h, w] is among the made ones in forward order.
    """
    past = _begun(layout, window, new, start_latent) if history is None else history
    if layout == "forward":
        return np.concatenate([past, new], axis=1)[:, -carried(window) :]
    return np.concatenate([new, past], axis=1)[:, : carried(window)]


def clean_inputs(
    layout: Layout,
    window: int,
    index: int,
    sections: int,
    history: FloatArray | None,
    start_latent: FloatArray,
) -> CleanInputs:
    """What section ``index`` of ``sections`` is shown, after the payload ``history`` or (None) as the first."""
    past = _begun(layout, window, start_latent, start_latent) if history is None else history
    if layout == "forward":
        far, middle, near = np.split(past[:, -REACH:], [FAR, FAR + MIDDLE], axis=1)
    else:
        near, middle, far = np.split(past[:, :REACH], [NEAR, NEAR + MIDDLE], axis=1)
    near = np.concatenate([start_latent, near], axis=1)
    return CleanInputs(near, middle, far, indices(layout, window, index, sections))


def video_tokens(window: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Tokens that are far, in the middle, near (with the start) and the window's, of latents ``height`` by ``width``.

    They are packed in that order; cells at the edges are padded up to whole ones.
    """

    def of(frames: int, cell: int = 1) -> int:
        return -(-frames // cell) * -(-height // (2 * cell)) * -(-width // (2 * cell))

    return of(FAR, 4), of(MIDDLE, 2), of(1 + NEAR), of(window)


def buckets(resolution: int) -> tuple[tuple[int, int], ...]:
    """FramePack's sizes (height, width), published for 640; for another ``resolution`` scaled, to multiples of 16."""

    def scaled(side: int) -> int:
        return max(1, round(side * resolution / (_BUCKET_RESOLUTION * _BUCKET_STEP))) * _BUCKET_STEP

    return tuple(
        dict.fromkeys((scaled(height), scaled(width)) for height, width in zip(_HEIGHTS, _HEIGHTS[::-1], strict=True))
    )


def nearest_bucket(height: int, width: int, resolution: int = _BUCKET_RESOLUTION) -> tuple[int, int]:
    """The bucket nearest in shape to an image of ``height`` by ``width``; of equally near ones the later."""
    return min(reversed(buckets(resolution)), key=lambda size: abs(height * size[1] - width * size[0]))


def _begun(layout: Layout, window: int, like: FloatArray, start_latent: FloatArray) -> FloatArray:
    """What is there before the first section: nothing, and in forward order the start as the newest frame."""
    channels, _, height, width = like.shape
    nothing = np.zeros((channels, carried(window), height, width), np.float32)
    return np.concatenate([nothing[:, 1:], start_latent], axis=1) if layout == "forward" else nothing

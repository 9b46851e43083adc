"""Pictures for browsers: a chunk's latent frames beside each other, and a chunk's frames one by one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gamecraft_core.media.fragment import TICKS_PER_FRAME

if TYPE_CHECKING:
    from PIL import Image

_QUALITY = 80


def strip(frames: npt.NDArray[np.uint8]) -> bytes:
    """Frames [T, H, W, 3] from left to right as one JPEG."""
    from PIL import Image

    count, height, width, channels = frames.shape
    return _bytes(Image.fromarray(frames.transpose(1, 0, 2, 3).reshape(height, count * width, channels)))


def singles(mp4: bytes, longest: int) -> list[tuple[int, bytes]]:
    """Every frame of our own ``mp4``: its number in the session, and a JPEG whose sides have ``longest`` pixels at most."""
    import av
    from PIL import Image

    pictures: list[tuple[int, bytes]] = []
    with av.open(io.BytesIO(mp4), "r") as container:
        for frame in container.decode(container.streams.video[0]):
            picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
            picture.thumbnail((longest, longest))
            pictures.append((frame.pts // TICKS_PER_FRAME, _bytes(picture)))
    return pictures


def _bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()

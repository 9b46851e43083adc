"""Start videos: the last frames of an untrusted clip, with every bound checked before memory is spent.

Invariant: only self-contained container formats are opened, from bytes in memory, so a clip cannot make the reader
open other files or addresses (playlists could).
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.errors import BadInput
from gamecraft_core.media.bounds import MAX_CLIP_FRAMES
from gamecraft_core.media.image import check_size, cover_crop

#: Demuxers that read one file and nothing else.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,ogg,flv,gif"
_REMEDY = "give a complete video file: MP4, MOV, MKV, WebM, AVI, MPEG, Ogg, FLV or GIF"


def read_last_frames(
    data: bytes,
    count: int,
    *,
    max_pixels: int,
    max_frames: int = MAX_CLIP_FRAMES,
    fit: tuple[int, int] | None = None,
    field: str = "video",
) -> npt.NDArray[np.uint8]:
    """The last ``count`` frames of a clip as RGB uint8 [count, H, W, 3], upright; ``fit``: cut to this (H, W)."""
    import av

    try:
        kept = _decode_tail(data, count, max_pixels, max_frames, field)
    except (av.FFmpegError, ValueError, IndexError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"the clip cannot be decoded ({reason})", field=field, remedy=_REMEDY) from error
    if len(kept) < count:
        raise BadInput(
            f"the clip has {len(kept)} frames, and the session starts from the last {count}",
            field=field,
            remedy=f"give a clip of at least {count} frames",
        )
    if len({(frame.width, frame.height, frame.rotation) for frame in kept}) > 1:
        raise BadInput("the frame size changes within the clip", field=field, remedy="encode it at one size")
    height, width = fit or _upright(kept[0]).shape[:2]
    pictures = np.empty((count, height, width, 3), np.uint8)
    for place in pictures:  # each frame is let go as soon as it is copied: large ones fill gigabytes
        upright = _upright(kept.popleft())
        place[...] = cover_crop(upright, *fit) if fit else upright
    return pictures


def decode_frames(mp4: bytes, numbers: Sequence[int]) -> tuple[npt.NDArray[np.uint8], ...]:
    """The frames with these numbers (from 0) of one of our own videos, as RGB uint8 [H, W, 3]."""
    import av

    found: dict[int, npt.NDArray[np.uint8]] = {}
    with av.open(io.BytesIO(mp4), "r") as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in numbers:
                found[number] = _rgb(frame)
    return tuple(found[number] for number in numbers)


def _decode_tail(data: bytes, count: int, max_pixels: int, max_frames: int, field: str) -> deque[Any]:
    import av

    kept: deque[Any] = deque(maxlen=count)
    with av.open(io.BytesIO(data), "r", options={"format_whitelist": _CONTAINERS}) as container:
        if not container.streams.video:
            raise BadInput("the file holds no video", field=field, remedy=_REMEDY)
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise BadInput("the video's codec is not known", field=field, remedy="encode it as H.264")
        stream.codec_context.thread_count = 1
        check_size(stream.width, stream.height, max_pixels, field)
        for number, frame in enumerate(container.decode(stream)):
            if number >= max_frames:
                raise BadInput(f"the clip has more than {max_frames} frames", field=field, remedy="cut it to its end")
            check_size(frame.width, frame.height, max_pixels, field)
            kept.append(frame)
    return kept


def _upright(frame: Any) -> npt.NDArray[np.uint8]:
    """RGB [H, W, 3], with the quarter turns that phones record as metadata carried out."""
    pixels = _rgb(frame)
    return np.rot90(pixels, round(frame.rotation / 90)) if frame.rotation else pixels


def _rgb(frame: Any) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return pixels

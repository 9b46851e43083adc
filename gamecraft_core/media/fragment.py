"""One chunk as a fragmented MP4, made without knowing any other chunk, and the joining of a session's chunks.

Invariants: the bytes depend on the arguments alone (one encoder thread, no macroblock tree); every chunk of a session
carries the same init segment, so init + media segments in order are a valid file; one keyframe a chunk, no B-frames,
so a chunk decodes by itself. Colour is BT.709, limited range, and tagged so.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.messages import Fragment

#: Timescale ticks a frame: 12800 ticks a second at 25 frames a second, and no rounding at any rate.
TICKS_PER_FRAME = 512

_MUXER = {
    "movflags": "empty_moov+default_base_moof+frag_keyframe+frag_discont+skip_trailer",
    "avoid_negative_ts": "disabled",
    "fflags": "+bitexact",
}

#: x264's macroblock tree reads memory it has not written at small sizes (7 results in 200 runs at 80x64; 1 without it).
_ENCODER = {"bf": "0", "sc_threshold": "0", "mbtree": "0"}


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What decoding a whole file showed. ``monotonic``: presentation times rise by exactly one frame each."""

    frames: int
    fps: Fraction
    width: int
    height: int
    monotonic: bool


def encode_fragment(
    frames: npt.NDArray[np.uint8],
    *,
    index: int,
    start_frame: int,
    fps: int,
    speed: str = "veryfast",
    crf: int = 20,
) -> Fragment:
    """Encode RGB ``frames`` [F, H, W, 3] as chunk ``index``, whose first frame is ``start_frame`` of the session."""
    count, height, width, channels = frames.shape
    if frames.dtype != np.uint8 or channels != 3 or not count or height % 2 or width % 2:
        raise ValueError(f"frames must be uint8 [F, H, W, 3] with even H and W, not {frames.dtype} {frames.shape}")
    import av

    muxer = _MUXER | {"video_track_timescale": str(TICKS_PER_FRAME * fps), "fragment_index": str(index + 1)}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options=muxer) as container:
        encoder = _ENCODER | {"preset": speed, "crf": str(crf), "g": str(count)}
        stream: Any = container.add_stream("libx264", rate=fps, options=encoder)
        _set_up(stream, height, width, fps)
        for offset in range(count):
            picture = _to_yuv(frames[offset])
            picture.pts = start_frame + offset
            picture.time_base = stream.codec_context.time_base
            picture.duration = 1
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    data = buffer.getvalue()
    return Fragment(data=data, init_bytes=init_length(data), frames=count)


def _set_up(stream: Any, height: int, width: int, fps: int) -> None:
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    context = stream.codec_context
    context.height, context.width, context.pix_fmt = height, width, "yuv420p"
    context.time_base = Fraction(1, fps)  # a finer one reaches the H.264 header, and readers then take it for the rate
    context.thread_count = 1
    context.color_range = ColorRange.MPEG
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709


def _to_yuv(rgb: npt.NDArray[np.uint8]) -> Any:
    import av
    from av.video.reformatter import ColorRange, Interpolation

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
        format="yuv420p",
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        dst_colorspace="ITU709",
        interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
        threads=1,
    )


def init_length(data: bytes) -> int:
    """Bytes before the first media segment: the ``ftyp`` and ``moov`` boxes."""
    starts = [start for kind, start in _boxes(data) if kind == b"moof"]
    if not starts:
        raise ValueError("not a fragmented MP4: it holds no media segment")
    return starts[0]


def codec_of(init: bytes) -> str:
    """The H.264 codec of an init segment as players name it (RFC 6381): ``avc1.PPCCLL``."""
    at = init.find(b"avcC")
    if at < 0 or len(init) < at + 8:
        raise ValueError("the init segment describes no H.264 stream")
    return f"avc1.{init[at + 5 : at + 8].hex()}"


def join(fragments: Iterable[Fragment | bytes]) -> bytes:
    """The session's MP4: one init segment, then every chunk's media segment in the order given."""
    init: bytes | None = None
    parts: list[bytes] = []
    for position, fragment in enumerate(fragments):
        data = fragment.data if isinstance(fragment, Fragment) else fragment
        length = init_length(data)
        if init is None:
            init = data[:length]
            parts.append(init)
        elif data[:length] != init:
            raise ValueError(f"fragment {position} was encoded with other settings: its init segment differs")
        parts.append(data[length:])
    if init is None:
        raise ValueError("there is no fragment to join")
    return b"".join(parts)


def probe(data: bytes) -> VideoFacts:
    """Decode a whole file and report what is really in it."""
    import av

    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        rate = Fraction(stream.average_rate or 0)
        times = [float(frame.time or 0) for frame in container.decode(stream)]
        monotonic = all(abs((time - times[0]) * rate - place) < 1e-3 for place, time in enumerate(times))
        return VideoFacts(len(times), rate, stream.width, stream.height, monotonic)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Kind and start of each top-level box. Our own muxer writes 32-bit sizes only; anything else is damage."""
    start = 0
    while start < len(data):
        size = int.from_bytes(data[start : start + 4])
        if size < 8 or start + size > len(data):
            raise ValueError(f"damaged MP4 box at byte {start}")
        yield data[start + 4 : start + 8], start
        start += size

"""Start videos: the right last frames, upright, and a reason for every clip that will not do."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gamecraft_core.base.errors import BadInput
from gamecraft_core.media.clip import decode_frames, read_last_frames
from gamecraft_core.media.fragment import encode_fragment
from gamecraft_core.media.image import cover_crop
from tests.fakes.recordings import flat_frames, level_of

LIMIT = 10_000
IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
QUARTER_TURN_RIGHT = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)


def clip(count: int, height: int = 32, width: int = 48) -> bytes:
    frames = flat_frames([level_of(number) for number in range(count)], height, width)
    return encode_fragment(frames, index=0, start_frame=0, fps=25).data


def levels(frames: np.ndarray) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def test_the_last_frames_in_order() -> None:
    frames = read_last_frames(clip(50), 33, max_pixels=LIMIT)
    assert frames.shape == (33, 32, 48, 3)
    assert frames.dtype == np.uint8
    assert levels(frames) == pytest.approx([level_of(number) for number in range(17, 50)], abs=4)


def test_exactly_enough_frames() -> None:
    assert len(read_last_frames(clip(17), 17, max_pixels=LIMIT)) == 17


def test_frames_are_cut_to_a_size() -> None:
    whole = read_last_frames(clip(5), 3, max_pixels=LIMIT)
    cut = read_last_frames(clip(5), 3, max_pixels=LIMIT, fit=(16, 16))
    assert np.array_equal(cut, np.stack([cover_crop(frame, 16, 16) for frame in whole]))


def test_reordered_frames_come_in_time_order() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for frame in flat_frames([30 + 5 * number for number in range(40)]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    found = levels(read_last_frames(buffer.getvalue(), 10, max_pixels=LIMIT))
    assert found == pytest.approx([30 + 5 * number for number in range(30, 40)], abs=4)


def test_a_turn_recorded_as_metadata_is_carried_out() -> None:
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:, :24] = 255
    data = encode_fragment(frame[None].repeat(3, 0), index=0, start_frame=0, fps=25).data
    at = data.index(IDENTITY, data.index(b"tkhd"))
    turned = data[:at] + QUARTER_TURN_RIGHT + data[at + len(IDENTITY) :]
    pixels = read_last_frames(turned, 1, max_pixels=LIMIT)[0]
    assert pixels.shape == (48, 32, 3)
    assert pixels[:20].min() > 250  # what was left is up
    assert pixels[28:].max() < 5


def sound() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def still() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(flat_frames([99])[0]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be decoded"),
        (b"not a video" * 100, "cannot be decoded"),
        (still(), "cannot be decoded"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/etc/passwd\n#EXT-X-ENDLIST\n", "cannot be decoded"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "cannot be decoded"),
        (sound(), "no video"),
        (clip(16), "has 16 frames, and the session starts from the last 17"),
        (clip(41), "more than 40 frames"),
        (clip(17, 102, 100), "limit of 10000 pixels"),
        (clip(17, 4, 80), "too narrow"),
    ],
)
def test_bad_clips_name_field_and_remedy(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_last_frames(data, 17, max_pixels=LIMIT, max_frames=40)
    assert caught.value.field == "video"
    assert caught.value.remedy


CLIP = clip(9)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6), st.integers(0))
def test_damage_never_escapes(flips: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(CLIP)
    for place, value in flips:
        damaged[place % len(CLIP)] = value
    if cut % 3 == 0:
        del damaged[cut % len(CLIP) :]
    try:
        frames = read_last_frames(bytes(damaged), 5, max_pixels=LIMIT)
    except BadInput as error:
        assert error.remedy  # noqa: PT017
    else:
        assert len(frames) == 5


def test_frames_by_number() -> None:
    first, again = decode_frames(clip(12), [7, 7])
    assert float(first.mean()) == pytest.approx(level_of(7), abs=4)
    assert np.array_equal(first, again)

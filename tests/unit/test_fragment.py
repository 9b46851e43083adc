"""Fragments: stateless, repeatable, and joinable into a file of exact time."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from gamecraft_core.base.messages import Fragment
from gamecraft_core.media.clip import decode_frames
from gamecraft_core.media.fragment import encode_fragment, init_length, join, probe
from tests.fakes.recordings import flat_frames, level_of


def chunk(index: int, start: int, count: int, *, fps: int = 25, height: int = 32, width: int = 48) -> Fragment:
    frames = flat_frames([level_of(number) for number in range(start, start + count)], height, width)
    return encode_fragment(frames, index=index, start_frame=start, fps=fps)


def mixed_session(fps: int = 25) -> list[Fragment]:
    """Chunks of 33, 17 and 33 frames: a chunk's start is not its index times a length."""
    return [chunk(0, 0, 33, fps=fps), chunk(1, 33, 17, fps=fps), chunk(2, 50, 33, fps=fps)]


@pytest.mark.parametrize("fps", [25, 24, 30])
def test_joined_chunks_are_one_video_of_exact_rate(fps: int) -> None:
    facts = probe(join(mixed_session(fps)))
    assert (facts.frames, facts.fps, facts.width, facts.height) == (83, Fraction(fps), 48, 32)
    assert facts.monotonic


def test_every_frame_is_at_its_place() -> None:
    pictures = decode_frames(join(mixed_session()), range(83))
    levels = [float(picture.mean()) for picture in pictures]
    assert levels == pytest.approx([level_of(number) for number in range(83)], abs=4)


def test_times_count_512_ticks_a_frame() -> None:
    with av.open(io.BytesIO(join(mixed_session())), "r") as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert stream.time_base == Fraction(1, 12800)
        assert [packet.dts for packet in packets] == [packet.pts for packet in packets] == list(range(0, 83 * 512, 512))
        assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 33, 50]


def test_a_chunk_decodes_alone() -> None:
    (picture,) = decode_frames(chunk(1, 33, 17).data, [0])
    assert float(picture.mean()) == pytest.approx(level_of(33), abs=4)


def test_init_segments_are_equal_and_media_segments_numbered() -> None:
    fragments = mixed_session()
    assert len({fragment.data[: fragment.init_bytes] for fragment in fragments}) == 1
    numbers = [fragment.data[(at := fragment.data.index(b"mfhd") + 8) : at + 4] for fragment in fragments]
    assert [int.from_bytes(number) for number in numbers] == [1, 2, 3]


def test_bytes_repeat() -> None:
    """At a size where x264's macroblock tree gave another result about once in thirty runs."""
    y, x = np.mgrid[:64, :80]
    moving = [np.stack([(3 * x + 4 * i) % 256, (2 * y + 2 * i) % 256, x * y % 256], -1) for i in range(17)]
    frames = np.stack(moving).astype(np.uint8)
    results = {encode_fragment(frames, index=1, start_frame=33, fps=25).data for _ in range(30)}
    assert len(results) == 1
    assert b" threads=1 " in results.pop()


def test_settings_that_would_not_repeat_are_off() -> None:
    data = chunk(0, 0, 17).data
    assert b" mbtree=0" in data
    assert b" lookahead_threads=1 " in data


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 200, 0), (30, 60, 250), (255, 255, 255), (0, 0, 0)])
def test_colours_survive_and_are_tagged(colour: tuple[int, int, int]) -> None:
    frames = np.broadcast_to(np.array(colour, np.uint8), (3, 32, 48, 3))
    with av.open(io.BytesIO(encode_fragment(frames, index=0, start_frame=0, fps=25).data), "r") as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
    assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - colour).max() <= 3


def test_join_takes_bytes_too_and_refuses_mixed_settings() -> None:
    first, second = chunk(0, 0, 5), chunk(1, 5, 5)
    assert join([first.data, second.data]) == join([first, second])
    with pytest.raises(ValueError, match="init segment differs"):
        join([first, chunk(1, 5, 5, width=64)])
    with pytest.raises(ValueError, match="no fragment"):
        join([])


@pytest.mark.parametrize("cut", [0, 7, 300, -1])
def test_damaged_fragments_are_noticed(cut: int) -> None:
    data = chunk(0, 0, 5).data
    with pytest.raises(ValueError, match="MP4"):
        init_length(data[:cut])


@pytest.mark.parametrize("shape", [(0, 32, 48, 3), (1, 31, 48, 3), (1, 32, 47, 3), (1, 32, 48, 4)])
def test_only_even_rgb_frames_are_taken(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_fragment(np.zeros(shape, np.uint8), index=0, start_frame=0, fps=25)

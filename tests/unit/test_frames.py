"""Frame counts, against the published numbers and formulas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.errors import BadInput
from gamecraft_core.timeline.frames import (
    Compression,
    check_chunk_frames,
    check_session_compression,
    clip_latents,
    latent_frames,
    pixel_frames,
    rope_frames,
)


@pytest.mark.parametrize(
    ("pixels", "latents"),
    [(33, 9), (34, 10), (37, 10), (66, 18), (69, 18), (17, 5), (18, 6), (21, 6), (1, 1), (2, 2), (129, 33)],
)
def test_884(pixels: int, latents: int) -> None:
    assert latent_frames(pixels, "884") == latents


@pytest.mark.parametrize("pixels", [18, 34, 66])
def test_the_published_formula_for_two_joined_clips(pixels: int) -> None:
    assert latent_frames(pixels) == (pixels - 2) // 4 + 2


@pytest.mark.parametrize(("history", "new"), [(1, 33), (33, 33), (1, 17), (17, 17)])
def test_a_layout_is_the_sum_of_its_parts(history: int, new: int) -> None:
    assert latent_frames(history + new) == clip_latents(history) + clip_latents(new)


def test_34_frames_are_ten_latents_in_both_modes() -> None:
    assert clip_latents(1) + clip_latents(33) == clip_latents(17) + clip_latents(17) == 10


@pytest.mark.parametrize(("pixels", "latents"), [(33, 5), (34, 6), (66, 10), (17, 3), (1, 1), (9, 2)])
def test_888(pixels: int, latents: int) -> None:
    assert latent_frames(pixels, "888") == latents


@pytest.mark.parametrize("pixels", [1, 2, 35, 100])
def test_no_compression_keeps_the_count(pixels: int) -> None:
    assert latent_frames(pixels, "none") == pixels == pixel_frames(pixels, "none")


@pytest.mark.parametrize(("latents", "length"), [(9, 33), (10, 37), (18, 69), (5, 17), (6, 21)])
def test_rotary_tables_are_named_by_one_clip_of_all_latents(latents: int, length: int) -> None:
    assert rope_frames(latents) == length


@given(st.integers(1, 400), st.sampled_from(["884", "888", "none"]), st.sampled_from([1, 2]))
def test_pixels_and_latents_are_inverse(latents: int, compression: Compression, clips: int) -> None:
    if latents >= clips:
        assert latent_frames(pixel_frames(latents, compression, clips), compression) == latents


@pytest.mark.parametrize(
    ("pixels", "compression", "neighbours"),
    [
        (35, "884", ["33 or 37", "34 or 38"]),
        (32, "884", ["29 or 33", "30 or 34"]),
        (37, "888", ["33 or 41", "34 or 42"]),
        (0, "884", [": 1 (", "clips 2 ("]),
        (-3, "none", [": 1 ("]),
    ],
)
def test_illegal_counts_name_their_neighbours(pixels: int, compression: Compression, neighbours: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        latent_frames(pixels, compression)
    for text in neighbours:
        assert text in caught.value.remedy


def test_one_clip_cannot_have_the_length_of_two() -> None:
    with pytest.raises(BadInput, match="33 or 37"):
        clip_latents(34)


def test_chunks_have_33_or_17_frames() -> None:
    assert [check_chunk_frames(n) for n in (33, 17)] == [33, 17]
    with pytest.raises(BadInput, match="33 or 17"):
        check_chunk_frames(21)


@pytest.mark.parametrize("compression", ["888", "none"])
def test_sessions_refuse_other_compressions_with_the_reason(compression: Compression) -> None:
    check_session_compression("884")
    with pytest.raises(BadInput, match="camera encoder pools time by exactly 4"):
        check_session_compression(compression)


def test_an_unknown_compression_is_named() -> None:
    with pytest.raises(BadInput, match="'848'"):
        latent_frames(33, "848")  # type: ignore[arg-type]

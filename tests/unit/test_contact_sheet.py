"""The contact sheet: every session's frames are on it, and it stays a picture of bounded size."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from gamecraft_core.media.contact_sheet import MAX_SESSIONS, SheetRow, contact_sheet, sheet_frames
from gamecraft_core.media.fragment import encode_fragment
from tests.fakes.recordings import flat_frames, level_of


def row(number: int, caption: str = "a quiet harbour", height: int = 64, width: int = 112) -> SheetRow:
    shades = [(number * 3 + 10, 200, 40 * place) for place in range(3)]
    frames = tuple(np.broadcast_to(np.array(shade, np.uint8), (height, width, 3)) for shade in shades)
    return SheetRow(f"session-{number}", caption, frames)


def drawn(rows: list[SheetRow]) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(contact_sheet(rows))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def packed(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """One number per colour [..., 3]."""
    numbers: npt.NDArray[np.int64] = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return numbers


def area(picture: npt.NDArray[np.uint8], colour: npt.NDArray[np.uint8]) -> int:
    return int((picture == colour).all(-1).sum())


@pytest.mark.parametrize("count", [1, 2, 7, MAX_SESSIONS])
def test_every_frame_has_its_place(count: int) -> None:
    rows = [row(number) for number in range(count)]
    found = dict(zip(*np.unique(packed(drawn(rows)), return_counts=True), strict=True))
    areas = [found[packed(frame[0, 0])] for each in rows for frame in each.frames]
    assert areas == [208 * round(64 * 208 / 112)] * 3 * count


def test_order_is_left_to_right() -> None:
    picture = drawn([row(0)])
    lefts = [int(np.nonzero((picture == frame[0, 0]).all(-1))[1].min()) for frame in row(0).frames]
    assert lefts == sorted(lefts)


def test_only_the_first_sessions_are_shown() -> None:
    rows = [row(number) for number in range(MAX_SESSIONS + 5)]
    assert np.array_equal(drawn(rows), drawn(rows[:MAX_SESSIONS]))


def test_sizes_may_differ() -> None:
    picture = drawn([row(0), row(1, height=704, width=1216), row(2, height=200, width=100)])
    assert area(picture, row(2).frames[0][0, 0]) == 208 * 416


def test_captions_are_drawn_and_cut_to_the_card() -> None:
    blank, short, long = (drawn([row(0, caption)]) for caption in ("", "a harbour", "a harbour " * 99))
    assert blank.shape == short.shape == long.shape
    assert not np.array_equal(blank, short)
    assert np.array_equal(blank[:, -40:], long[:, -40:])  # nothing is written beyond the card's padding


def test_letters_the_font_lacks_are_replaced() -> None:
    assert np.array_equal(drawn([row(0, "caf\u00e9 \u2014 \u6d77")]), drawn([row(0, "cafe - ?")]))


def test_first_middle_last() -> None:
    frames = flat_frames([level_of(number) for number in range(33)])
    video = encode_fragment(frames, index=0, start_frame=0, fps=25).data
    levels = [float(frame.mean()) for frame in sheet_frames(video, 33)]
    assert levels == pytest.approx([level_of(0), level_of(16), level_of(32)], abs=4)

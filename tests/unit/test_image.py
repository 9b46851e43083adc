"""Start images: every format and turn read right, every bad one refused with a reason."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from gamecraft_core.base.errors import BadInput
from gamecraft_core.media.image import MAX_ASPECT, cover_crop, header_check, read_image

LIMIT = 10_000


def scene(height: int = 40, width: int = 60) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_are_exact(form: str, options: dict[str, Any]) -> None:
    data = encoded(Image.fromarray(scene()), form, **options)
    assert np.array_equal(read_image(data, max_pixels=LIMIT), scene())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns(orientation: int) -> None:
    image = Image.fromarray(scene())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(read_image(data, max_pixels=LIMIT), expected)
    assert header_check(data, max_pixels=LIMIT) == expected.shape[:2]


def test_transparent_parts_are_black() -> None:
    layer = np.dstack([scene(), np.zeros((40, 60), np.uint8)])
    layer[:, 30:, 3] = 255
    pixels = read_image(encoded(Image.fromarray(layer), "PNG"), max_pixels=LIMIT)
    assert not pixels[:, :30].any()
    assert np.array_equal(pixels[:, 30:], scene()[:, 30:])


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    grey = (np.arange(60, dtype=np.uint16) * 1000)[None].repeat(40, 0)
    pixels = read_image(encoded(Image.fromarray(grey), "PNG"), max_pixels=LIMIT)
    assert np.array_equal(pixels, (grey >> 8).astype(np.uint8)[..., None].repeat(3, -1))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_other_modes_become_rgb(mode: str) -> None:
    form = "JPEG" if mode == "CMYK" else "PNG"
    pixels = read_image(encoded(Image.fromarray(scene()).convert(mode), form), max_pixels=LIMIT)
    assert pixels.shape == (40, 60, 3)
    assert pixels.dtype == np.uint8


def test_a_file_object_is_judged_by_its_header_alone() -> None:
    data = encoded(Image.fromarray(scene()), "PNG")[:60]
    assert header_check(io.BytesIO(data), max_pixels=LIMIT) == (40, 60)
    with pytest.raises(BadInput, match="damaged"):
        read_image(data, max_pixels=LIMIT)


def test_gigantic_images_are_refused_unread() -> None:
    data = bytearray(encoded(Image.fromarray(scene()), "BMP"))
    data[18:26] = (40_000).to_bytes(4, "little") * 2  # 1.6 G pixels, by its header
    with pytest.raises(BadInput, match=r"large|limit") as caught:
        header_check(bytes(data), max_pixels=LIMIT)
    assert caught.value.field == "image"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"hello, this is text" * 20, "not an image"),
        (encoded(Image.fromarray(scene()), "TIFF"), "not an image"),
        (encoded(Image.fromarray(scene(101, 100)), "PNG"), "limit of 10000 pixels"),
        (encoded(Image.fromarray(scene(2, 2 * MAX_ASPECT + 1)), "PNG"), "too narrow"),
        (encoded(Image.fromarray(scene()), "JPEG")[:-400], "damaged"),
    ],
)
def test_bad_images_name_field_and_remedy(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_image(data, max_pixels=LIMIT)
    assert caught.value.field == "image"
    assert caught.value.remedy


SEEDS = [
    encoded(Image.fromarray(scene()), "PNG"),
    encoded(Image.fromarray(scene()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"),
    encoded(Image.fromarray(scene()), "WEBP"),
    encoded(Image.fromarray(scene()), "BMP"),
    encoded(Image.fromarray(scene()).convert("P"), "GIF"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6), st.integers(0))
def test_damage_never_escapes(data: bytes, flips: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(data)
    for place, value in flips:
        damaged[place % len(data)] = value
    if cut % 3 == 0:
        del damaged[cut % len(data) :]
    for read in (read_image, header_check):
        try:
            result = read(bytes(damaged), max_pixels=LIMIT)
        except BadInput as error:
            assert error.remedy  # noqa: PT017
        else:
            height, width = result.shape[:2] if isinstance(result, np.ndarray) else result
            assert height * width <= LIMIT


def test_cover_crop_leaves_the_right_size_alone() -> None:
    assert np.array_equal(cover_crop(scene(), 40, 60), scene())


def test_cover_crop_keeps_the_centre() -> None:
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 20:80] = scene()
    assert np.array_equal(cover_crop(wide, 40, 60), scene())


def test_lanczos_sizes_are_rounded_so_that_nothing_stays_black() -> None:
    white = np.full((552, 960, 3), 255, np.uint8)
    assert (cover_crop(white, 704, 1216, "lanczos") == 255).all()
    wide = np.kron(np.eye(40, 100, dtype=np.uint8)[..., None], np.full((1, 1, 3), 255, np.uint8))
    sharp, soft = (cover_crop(wide, 20, 30, scaling).astype(int) for scaling in ("lanczos", "bilinear"))
    assert sharp.max() > soft.max()


def test_a_size_that_comes_out_one_pixel_short_is_padded_black_below() -> None:
    white = np.full((552, 960, 3), 255, np.uint8)
    pixels = cover_crop(white, 704, 1216)
    assert pixels.shape == (704, 1216, 3)
    assert (pixels[:703] == 255).all()
    assert not pixels[703].any()

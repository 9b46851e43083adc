"""Start images: bounded reading of untrusted bytes, and the family's resize and crop.

Invariants: sizes are judged from the header before a pixel is decoded; whatever the bytes hold, the result is RGB
uint8 or a BadInput naming the field; equal bytes give equal pixels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.errors import BadInput

if TYPE_CHECKING:
    from PIL import Image

#: How a picture is scaled: with both sides truncated to whole pixels where bilinear, rounded where by Lanczos.
Scaling = Literal["bilinear", "lanczos"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")

#: Longest side over shortest. A thin image scaled to cover a normal one would need gigabytes.
MAX_ASPECT = 16

#: What Pillow's decoders raise on damaged bytes (found by feeding them flipped and cut files).
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, struct.error)

#: Names of Pillow's ``Transpose`` members that undo each EXIF orientation.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}

_REMEDY = f"give a complete image file in one of the formats {', '.join(FORMATS)}"


def header_check(source: bytes | BinaryIO, *, max_pixels: int, field: str = "image") -> tuple[int, int]:
    """(height, width) as displayed, from the header alone; BadInput when the image could not be accepted."""
    with _opened(source, max_pixels, field) as image:
        turned = _orientation(image) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def read_image(data: bytes, *, max_pixels: int, field: str = "image") -> npt.NDArray[np.uint8]:
    """Decode to RGB uint8 [H, W, 3]: turned as its EXIF says, first frame if animated, transparent parts on black."""
    from PIL.Image import Transpose

    with _opened(data, max_pixels, field) as image:
        rgb = _to_rgb(image)
        turn = _TURNS.get(_orientation(image))
        return np.array(rgb.transpose(Transpose[turn]) if turn else rgb)


def check_size(width: int, height: int, max_pixels: int, field: str) -> None:
    """BadInput for pictures too large to decode or too thin to be scaled to cover a frame."""
    if width < 1 or height < 1 or width * height > max_pixels:
        raise BadInput(
            f"{width}x{height} is outside the limit of {max_pixels} pixels", field=field, remedy="scale it down first"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadInput(f"{width}x{height} is too narrow", field=field, remedy=f"keep sides within 1:{MAX_ASPECT}")


def cover_size(
    source_height: int, source_width: int, height: int, width: int, *, scaling: Scaling = "bilinear"
) -> tuple[int, int]:
    """(height, width) of a picture scaled to cover a frame; of bilinear scaling some come out one pixel short."""
    scale = max(width / source_width, height / source_height)
    whole = int if scaling == "bilinear" else round
    return whole(source_height * scale), whole(source_width * scale)


def cover_crop(
    pixels: npt.NDArray[np.uint8], height: int, width: int, scaling: Scaling = "bilinear"
) -> npt.NDArray[np.uint8]:
    """Scale RGB ``pixels`` [H, W, 3] to cover ``height`` x ``width`` and cut out the centre, as the family's code does.

    Where the scaled picture is one pixel short, that row or column at the bottom or right stays black.
    """
    from PIL import Image

    source_height, source_width = pixels.shape[:2]
    new_height, new_width = cover_size(source_height, source_width, height, width, scaling=scaling)
    resampling = Image.Resampling[scaling.upper()]
    scaled = np.asarray(Image.fromarray(pixels).resize((new_width, new_height), resampling))
    scaled = np.pad(scaled, ((0, max(0, height - new_height)), (0, max(0, width - new_width)), (0, 0)))
    top, left = round((scaled.shape[0] - height) / 2), round((scaled.shape[1] - width) / 2)
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


@contextmanager
def _opened(source: bytes | BinaryIO, max_pixels: int, field: str) -> Iterator[Image.Image]:
    """The image, its size checked and nothing decoded yet. What Pillow raises inside the block becomes BadInput."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            check_size(image.width, image.height, max_pixels, field)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"the image is too large ({error})", field=field, remedy="scale it down first") from error
    except UnidentifiedImageError as error:
        raise BadInput("the bytes are not an image that can be read", field=field, remedy=_REMEDY) from error
    except _DAMAGE as error:
        raise BadInput(f"the image is damaged ({error})", field=field, remedy=_REMEDY) from error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation: 1 is upright, 5 to 8 swap the sides."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole file in search of a late one
    return int(image.getexif().get(0x0112, 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip to 255 where we want the high byte
        high = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(high.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
    return image.convert("RGB")

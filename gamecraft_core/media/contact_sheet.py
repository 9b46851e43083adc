"""One picture of a run: first, middle and last frame of every session, captioned, on a dark ground."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gamecraft_core.media.clip import decode_frames

if TYPE_CHECKING:
    from PIL import ImageDraw

MAX_SESSIONS = 64

_THUMB_WIDTH = 208
_GAP = 4
_PAD = 12
_MARGIN = 28
_TITLE_SIZE, _TEXT_SIZE = 15, 13
_CAPTION_HEIGHT = 46
_GROUND, _CARD, _TITLE, _TEXT = "#101216", "#191c22", "#eceff4", "#8d95a5"


_PLAIN = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One session on the sheet: ``title`` (its id), ``caption`` (its prompt), frames uint8 [H, W, 3] left to right."""

    title: str
    caption: str
    frames: tuple[npt.NDArray[np.uint8], ...]


def sheet_frames(mp4: bytes, num_frames: int) -> tuple[npt.NDArray[np.uint8], ...]:
    """First, middle and last frame of a session's video."""
    return decode_frames(mp4, (0, num_frames // 2, num_frames - 1))


def contact_sheet(rows: Sequence[SheetRow]) -> bytes:
    """PNG with one card for each of the first MAX_SESSIONS rows, in as many columns as keep it near 3:2."""
    from PIL import Image, ImageDraw

    if not rows:
        raise ValueError("a contact sheet needs at least one session")
    rows = rows[:MAX_SESSIONS]
    thumb_height = max(_thumb_height(frame) for row in rows for frame in row.frames)
    strip = max(len(row.frames) for row in rows)
    card_width = strip * _THUMB_WIDTH + (strip - 1) * _GAP + 2 * _PAD
    card_height = thumb_height + _CAPTION_HEIGHT + 2 * _PAD
    columns = min(len(rows), max(1, round(math.sqrt(1.5 * len(rows) * card_height / card_width))))
    lines = math.ceil(len(rows) / columns)
    size = (_MARGIN + columns * (card_width + _MARGIN), _MARGIN + lines * (card_height + _MARGIN))
    sheet = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(sheet)
    for position, row in enumerate(rows):
        left = _MARGIN + position % columns * (card_width + _MARGIN)
        top = _MARGIN + position // columns * (card_height + _MARGIN)
        draw.rounded_rectangle((left, top, left + card_width, top + card_height), radius=10, fill=_CARD)
        for place, frame in enumerate(row.frames):
            thumb = _thumbnail(frame)
            sheet.paste(thumb, (left + _PAD + place * (_THUMB_WIDTH + _GAP), top + _PAD))
        _caption(draw, row, left + _PAD, top + _PAD + thumb_height + 8, card_width - 2 * _PAD)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _thumb_height(frame: npt.NDArray[np.uint8]) -> int:
    return max(1, round(_THUMB_WIDTH * int(frame.shape[0]) / int(frame.shape[1])))


def _thumbnail(frame: npt.NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(frame).resize((_THUMB_WIDTH, _thumb_height(frame)), Image.Resampling.LANCZOS)


def _caption(draw: ImageDraw.ImageDraw, row: SheetRow, left: int, top: int, width: int) -> None:
    from PIL import ImageFont

    title, text = ImageFont.load_default(_TITLE_SIZE), ImageFont.load_default(_TEXT_SIZE)
    draw.text((left, top), _fit(row.title, title, width), font=title, fill=_TITLE)
    draw.text((left, top + 21), _fit(row.caption, text, width), font=text, fill=_TEXT)


def _fit(text: str, font: Any, width: int) -> str:
    """``text`` on one line, in letters that Pillow's built-in font has, cut where it would leave the card."""
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    text = "".join(letter for letter in plain if not unicodedata.combining(letter))
    text = " ".join(text.encode("ascii", "replace").decode().split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"

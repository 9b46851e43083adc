"""Orders of a video in overlapping sections."""

from __future__ import annotations

from gamecraft_core.base.messages import DecodeOrder
from gamecraft_core.base.spec import Layout
from gamecraft_core.timeline.spans import place, span


def decode_order(layout: Layout, window: int, index: int, sections: int, side: int) -> DecodeOrder:
    begin, end = span(layout, 4 * window, sections, index)
    return DecodeOrder(
        session_id="s",
        index=index,
        start_frame=begin,
        frames=end - begin,
        place=place(layout, sections, index),
        chunks=sections,
        height=side,
        width=side,
        fps=30,
    )

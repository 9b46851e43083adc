"""What of a section's payload becomes the pixels that it settles: which latents are decoded together, and which fade.

Every section is decoded together with the one before it, so that neighbouring decodes share the pixels of one window;
over those the earlier in time fades into the later. A section settles what no later one changes (``spans.span``): so
two decodes have a part in it, its own and that of the section before, and both are of latents in its payload.
"""

from __future__ import annotations

from dataclasses import dataclass

from gamecraft_core.base.spec import Layout
from gamecraft_core.timeline.frames import pixel_frames
from gamecraft_core.timeline.sections import carried
from gamecraft_core.timeline.spans import Span, overlap_frames, span


@dataclass(frozen=True, slots=True)
class Clip:
    """``latents`` of a payload, behind the start's or not, decoded together; of their pixels ``wanted`` frames."""

    starts: bool
    latents: Span
    wanted: Span

    @property
    def count(self) -> int:
        """How many latents are decoded, the start's included."""
        return self.latents[1] - self.latents[0] + self.starts


@dataclass(frozen=True, slots=True)
class Settled:
    """``clips`` in the order of time; where there are two, the ``overlap`` frames at which they meet are shared."""

    clips: tuple[Clip, ...]
    overlap: int = 0


def settled(layout: Layout, window: int, index: int, sections: int) -> Settled:
    """What section ``index`` of ``sections`` settles; of no clip where that is nothing yet."""
    length = 4 * window
    begin, end = span(layout, length, sections, index)
    if begin == end:
        return Settled(())
    own = _clip(layout, window, index, sections, end - begin)
    if not index:
        return Settled((own,))
    overlap = overlap_frames(length)
    before = _clip(layout, window, index, sections, overlap, ago=1)
    return Settled((own, before) if layout == "inverted" else (before, own), overlap)


def _clip(layout: Layout, window: int, index: int, sections: int, frames: int, ago: int = 0) -> Clip:
    """The decode of the section ``ago`` before ``index``; ``frames`` of it are wanted, on the side of the other."""
    inverted, section = layout == "inverted", index - ago
    starts = section == (sections - 1 if inverted else 0)
    near, far = ago * window, (ago + min(section + 1, 2)) * window
    latents = (near, far) if inverted else (carried(window) - far, carried(window) - near)
    length = pixel_frames(far - near + starts)
    begins_there = inverted == bool(ago)
    return Clip(starts, latents, (0, frames) if begins_there else (length - frames, length))

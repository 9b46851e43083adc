"""Which pixel frames of its session's video a chunk settles, and where that lies among the others.

Tiled chunks settle their own frames. Overlapping ones share ``length - 3`` pixel frames with the chunk before (decoded
once more with the new latents, and faded over), so those of one's own that the next will change are not settled yet.
Inverted order makes the end of the video first: its first chunk settles nothing, its last one the beginning.
"""

from __future__ import annotations

from gamecraft_core.base.spec import Layout

Span = tuple[int, int]


def overlap_frames(length: int) -> int:
    """Pixel frames that two neighbouring chunks of ``length`` share: those of one window of latents, 4n - 3."""
    return length - 3


def span(layout: Layout, length: int, chunks: int, index: int) -> Span:
    """Half open, maybe empty: what chunk ``index`` of ``chunks``, each of ``length`` new frames, settles."""
    if not 0 <= index < chunks:
        raise ValueError(f"there is no chunk {index} of {chunks}")
    if layout == "tiled":
        return index * length, (index + 1) * length
    total, last = chunks * length + 1, index == chunks - 1
    before = max(index - 1, 0) * length  # frames settled by chunks before the one before
    if layout == "inverted":
        end = total - before
        return (0, end) if last else (total - index * length, end)
    lead = length + 1 - overlap_frames(length)
    start = before + lead if index else 0
    return start, total if last else index * length + lead


def place(layout: Layout, chunks: int, index: int) -> int:
    """The place in time of what chunk ``index`` of ``chunks`` settles."""
    return chunks - 1 - index if layout == "inverted" else index

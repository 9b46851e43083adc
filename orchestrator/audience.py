"""What people who watch live sessions see of them: how long an action takes to its first frame, and when play stands.

A player shows chunk after chunk and waits for the next one where it has none. Pure; seconds on the caller's clock.
Memory: a few numbers a live session, and one pair for each control that is not carried out yet.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from gamecraft_core.base.spec import SessionSpec


def played_by(spec: SessionSpec, index: int) -> float:
    """Seconds of video that chunk ``index`` lets play: made from the end, none before the beginning is there."""
    if spec.layout != "inverted":
        return spec.chunk_frames / spec.fps
    return spec.num_frames / spec.fps if index + 1 == spec.num_chunks else 0.0


class Shown(NamedTuple):
    """``waited`` from an accepted control to its chunk; ``stalled`` of it, after what was there had been played."""

    waited: float
    stalled: float


class Viewer:
    """One live session. ``shown_at`` is when its last chunk could be shown, ``plays_until`` when that ends."""

    __slots__ = ("_asked", "_asks", "_last", "_plays_until", "_shown_at")

    def __init__(self, controls: int, now: float) -> None:
        self._asks = controls
        self._asked = deque([(controls, now)])
        self._last = -1
        self._shown_at = self._plays_until = 0.0

    def asks(self, controls: int, now: float) -> None:
        """So many controls more are accepted."""
        self._asks += controls
        self._asked.append((self._asks, now))

    def sees(self, index: int, seconds: float, now: float) -> Shown | None:
        """Chunk ``index``, of so many seconds, can be shown; None where it was before (its session went back)."""
        if index <= self._last:
            return None
        while len(self._asked) > 1 and self._asked[0][0] <= index:
            self._asked.popleft()
        asked = self._asked[0][1]
        first, self._last = self._last < 0, index
        waited = now - max(asked, self._shown_at)
        in_time = not first and asked <= self._plays_until
        stalled = max(0.0, now - self._plays_until) if in_time else 0.0
        self._shown_at, self._plays_until = now, max(now, self._plays_until) + seconds
        return Shown(waited, stalled)

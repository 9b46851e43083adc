"""How many lanes a kind of work wants: counts and a clock in, one lane more or one fewer out. No lanes in here.

A lane comes when the orders that wait would wait too long, and has for a while; it goes when, for a whole while, never
as many were at work as there are without it. So what brought a lane, if it lasts, never sends it away again. Invariant:
between the bounds nothing leaves them; outside of them, the way back does not wait.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

#: What the latest order counts in the mean of an order's seconds.
_LATEST = 0.2


@dataclass(frozen=True, slots=True)
class Pace:
    """``target_wait_seconds``: orders may wait so long for a lane. Longer than that for ``patience_seconds``: one more.

    ``idle_seconds``: so long fewer lanes must have been enough before one goes. ``look_seconds`` lie between two looks.
    """

    target_wait_seconds: float
    patience_seconds: float
    idle_seconds: float
    look_seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """``work`` counts orders, ready or in lanes, ``lanes`` those that take orders, ``coming`` those on their way."""

    work: int
    lanes: int
    coming: int


class Demand:
    """One kind of lane; each works on ``at_once`` orders at a time. ``most`` None: as many as ``least``."""

    def __init__(self, least: int, most: int | None, pace: Pace, at_once: int = 1) -> None:
        self.least = least
        self.most = least if most is None else most
        self._pace = pace
        self._at_once = at_once
        self._seconds: float | None = None
        self._pressed_since: float | None = None
        self._began: float | None = None
        self._peaks: deque[tuple[float, int]] = deque()

    def took(self, seconds: float) -> None:
        """An order of this kind took so long in its lane."""
        self._seconds = seconds if self._seconds is None else self._seconds + _LATEST * (seconds - self._seconds)

    def change(self, load: Load, now: float) -> int:
        """+1, -1 or 0 lanes. To be asked again soon, whatever comes of it."""
        have = load.lanes + load.coming
        spare = self._spare(load, now)
        pressed = self._pressed(load, now)
        if have < self.least:
            return 1
        if have > self.most:
            return -1
        if have < self.most and pressed:
            return 1
        return -1 if have > self.least and spare else 0

    def wait(self, load: Load) -> float:
        """Seconds that the last of the orders will wait, once the lanes on their way are there."""
        capacity = (load.lanes + load.coming) * self._at_once
        return max(0, load.work - capacity) * (self._seconds or 0.0) / max(1, capacity)

    def _pressed(self, load: Load, now: float) -> bool:
        if self.wait(load) <= self._pace.target_wait_seconds:
            self._pressed_since = None
            return False
        if self._pressed_since is None:
            self._pressed_since = now
        return now - self._pressed_since >= self._pace.patience_seconds

    def _spare(self, load: Load, now: float) -> bool:
        """In all of the last while, there was work for fewer lanes than there are. An order is part of a while."""
        needed = math.ceil(load.work / self._at_once)
        window = max(self._pace.idle_seconds, self._seconds or 0.0)
        while self._peaks and self._peaks[-1][1] <= needed:
            self._peaks.pop()
        self._peaks.append((now, needed))
        while self._peaks[0][0] < now - window:
            self._peaks.popleft()
        if self._began is None:
            self._began = now
        return now - self._began >= window and self._peaks[0][1] < load.lanes + load.coming

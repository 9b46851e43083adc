"""The lanes of a run as they come, are lost, come back and go; and what is still to come.

Whoever brings or takes lanes asks here (``expect``, ``add``, ``drain``); the engine's loop carries it out, in order
with everything else that happens. Invariant: while a lane is on its way, ``expecting`` is true, so no run ends for want
of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from gamecraft_core.base.errors import LaneLost
from orchestrator.healing import Healer
from orchestrator.limits import Limits
from orchestrator.ports import Keeper, Lane, Listener
from orchestrator.scheduler import Scheduler

log = logging.getLogger("framelane.engine")


class Roster:
    """Owns which lanes there are: in the scheduler, at the healer's, and expected from elsewhere."""

    def __init__(
        self,
        scheduler: Scheduler,
        keeper: Keeper | None,
        limits: Limits,
        listeners: Sequence[Listener],
        clock: Callable[[], float],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        """``post`` hands something to the engine's loop, which does it soon."""
        self._scheduler = scheduler
        self._healer = Healer(keeper, limits, lambda lost, new: post(partial(self._healed, lost, new)))
        self._listeners = listeners
        self._clock = clock
        self._post = post
        self._coming = 0

    @property
    def expecting(self) -> bool:
        """Some lane may still come, or come back."""
        return self._coming > 0 or self._healer.busy

    @property
    def ailing(self) -> list[Lane]:
        """Lanes that are lost and may come back."""
        return self._healer.awaited

    def expect(self) -> None:
        """A lane is on its way: ``add`` or ``expect_no_more`` is to follow."""
        self._coming += 1

    def expect_no_more(self) -> None:
        """One of the lanes that were expected does not come."""
        self._post(self._called_off)

    def add(self, lane: Lane, *, expected: bool = False) -> None:
        """``lane`` is new to the fleet, and takes orders from now on."""
        self._post(partial(self._joined, lane, expected))

    def drain(self, lane: Lane, *, noticed: bool = False) -> None:
        """``lane`` takes no new order; listeners hear when it has finished what it holds (``lane_left``).

        One that is being replaced after a loss is not waited for any more. ``noticed``: a node of it is about to go.
        """
        self._post(partial(self._drained, lane, noticed))

    def did_well(self, lane: Lane) -> None:
        self._healer.did_well(lane)

    def lost(self, lane: Lane, error: LaneLost) -> None:
        """``lane`` died under an order. If it was to go anyway it has left; else something is to take its place."""
        leaving = self._scheduler.draining(lane)
        suspects = self._scheduler.remove_lane(lane)
        if suspects is None:
            return
        for suspect in suspects:
            suspect.suspect = True
        log.warning("lane lost: %s", error, extra={"lane": lane.name, "stage": lane.stage})
        for listener in self._listeners:
            listener.lane_lost(lane, error, self._clock())
        if leaving:
            self.left(lane)
        else:
            self._healer.lost(lane)

    def left(self, lane: Lane) -> None:
        for listener in self._listeners:
            listener.lane_left(lane, self._clock())

    async def close(self) -> None:
        await self._healer.close()

    def _called_off(self) -> None:
        self._coming -= 1

    def _joined(self, lane: Lane, expected: bool) -> None:
        self._coming -= expected
        self._scheduler.add_lane(lane)
        for listener in self._listeners:
            listener.lane_joined(lane, self._clock())

    def _drained(self, lane: Lane, noticed: bool) -> None:
        if noticed:
            for listener in self._listeners:
                listener.lane_leaving(lane, self._clock())
        there = self._scheduler.fleet.of(lane) is not None
        if self._healer.call_off(lane) or (there and self._scheduler.drain_lane(lane)):
            self.left(lane)

    def _healed(self, lost: Lane, replacement: Lane | None) -> None:
        now = self._clock()
        if replacement is not None:
            log.info("lane is back", extra={"lane": replacement.name, "stage": replacement.stage})
            self._scheduler.add_lane(replacement)
        for listener in self._listeners:
            if replacement is None:
                listener.lane_given_up(lost, now)
            else:
                listener.lane_back(replacement, now)

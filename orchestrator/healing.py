"""Lost lanes and their replacements: one attempt after another, each a little later, until a budget is spent.

A lane that dies again before it has done one order is failing, not unlucky: its losses in a row count against the
budget, whoever is to blame for them. Other lanes go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from gamecraft_core.base.errors import FramelaneError, UsageError
from orchestrator.limits import Limits
from orchestrator.ports import Keeper, Lane

log = logging.getLogger("framelane.healing")

#: Hears of a lost lane and of what took its place, None where nothing will.
Report = Callable[[Lane, Lane | None], None]


class Healer:
    """Asks ``keeper`` for replacements. Without one, a lost lane is given up at once."""

    def __init__(self, keeper: Keeper | None, limits: Limits, report: Report) -> None:
        self._keeper = keeper
        self._limits = limits
        self._report = report
        self._losses: Counter[str] = Counter()
        self._running: set[asyncio.Task[None]] = set()
        self._awaited = 0

    @property
    def busy(self) -> bool:
        """Some lane may still come back."""
        return self._awaited > 0

    def lost(self, lane: Lane) -> None:
        """``lane`` is out; see to a new one."""
        self._losses[lane.name] += 1
        self._awaited += 1
        running = asyncio.create_task(self._replace(lane))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def did_well(self, lane: Lane) -> None:
        """``lane`` has done an order: what happened to it before does not count any more."""
        self._losses.pop(lane.name, None)

    async def close(self) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _replace(self, lane: Lane) -> None:
        try:
            replacement = await self._rebuilt(lane)
        except Exception:
            log.exception("the fleet broke while it rebuilt %s", lane.name)
            replacement = None
        self._awaited -= 1
        self._report(lane, replacement)

    async def _rebuilt(self, lane: Lane) -> Lane | None:
        if self._keeper is None:
            return None
        while (losses := self._losses[lane.name]) <= self._limits.max_rebuilds:
            if losses > 1:
                await asyncio.sleep(self._limits.backoff(losses - 1))
            try:
                return await self._keeper.rebuild(lane)
            except UsageError as error:
                log.error("lane %s can never start: %s", lane.name, error)
                return None
            except FramelaneError as error:
                log.warning("lane %s did not start: %s", lane.name, error)
                self._losses[lane.name] += 1
        log.error("lane %s is given up after %d losses in a row", lane.name, losses)
        return None

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
        self._awaited: dict[str, tuple[Lane, asyncio.Task[None]]] = {}
        self._called_off: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Some lane may still come back."""
        return bool(self._awaited)

    @property
    def awaited(self) -> list[Lane]:
        """The lost lanes that may."""
        return [lane for lane, _ in self._awaited.values()]

    def lost(self, lane: Lane) -> None:
        """``lane`` is out; see to a new one."""
        self._losses[lane.name] += 1
        self._awaited[lane.name] = lane, asyncio.create_task(self._replace(lane))

    def call_off(self, lane: Lane) -> bool:
        """Nobody wants ``lane`` back; False where it is not awaited."""
        _, running = self._awaited.pop(lane.name, (None, None))
        self._losses.pop(lane.name, None)
        if running is not None:
            self._called_off.add(running)
            running.add_done_callback(self._called_off.discard)
            running.cancel()
        return running is not None

    def did_well(self, lane: Lane) -> None:
        """``lane`` has done an order: what happened to it before does not count any more."""
        self._losses.pop(lane.name, None)

    async def close(self) -> None:
        running = [*self._called_off, *(each for _, each in self._awaited.values())]
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _replace(self, lane: Lane) -> None:
        try:
            replacement = await self._rebuilt(lane)
        except Exception:
            log.exception("the fleet broke while it rebuilt the lane", extra={"lane": lane.name})
            replacement = None
        del self._awaited[lane.name]
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
                log.error("lane can never start: %s", error, extra={"lane": lane.name})
                return None
            except FramelaneError as error:
                log.warning("lane did not start: %s", error, extra={"lane": lane.name})
                self._losses[lane.name] += 1
        log.error("lane is given up after %d losses in a row", losses, extra={"lane": lane.name})
        return None

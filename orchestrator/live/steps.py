"""How far denoising is, asked of the lanes a few times a second, and only while somebody listens."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, runtime_checkable

from gamecraft_core.base.errors import FramelaneError
from orchestrator.live.registry import Registry
from orchestrator.ports import Lane, Listener

log = logging.getLogger("framelane.live")


#: What a denoise lane is at: session, chunk, step of so many steps.
Step = tuple[str, int, int, int]


@runtime_checkable
class Stepping(Protocol):
    """A lane that can say how far it is, beside its work."""

    async def progress(self) -> Step | None:
        """None between two orders. Raises FramelaneError where the lane does not answer."""
        ...


class Steps(Listener):
    """Asks the denoise lanes that there are at the moment."""

    def __init__(self, registry: Registry, seconds: float) -> None:
        self._registry = registry
        self._seconds = seconds
        self._lanes: dict[str, Stepping] = {}
        self._told: dict[str, Step] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._registry.watched():
                await asyncio.gather(*(self._ask(name, lane) for name, lane in list(self._lanes.items())))
            await asyncio.sleep(self._seconds)

    def lane_joined(self, lane: Lane, now: float) -> None:
        if lane.stage == "denoise" and isinstance(lane, Stepping):
            self._lanes[lane.name] = lane

    def lane_back(self, lane: Lane, now: float) -> None:
        self.lane_joined(lane, now)

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self._lanes.pop(lane.name, None)

    def lane_left(self, lane: Lane, now: float) -> None:
        self._lanes.pop(lane.name, None)

    async def _ask(self, name: str, lane: Stepping) -> None:
        try:
            step = await lane.progress()
        except FramelaneError as error:  # the engine hears of a lost lane by itself
            log.debug("it does not say how far it is: %s", error, extra={"lane": name})
            return
        if step is not None and step != self._told.get(name):
            self._told[name] = step
            self._registry.step(*step)

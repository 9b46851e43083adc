"""What a chunk will look like, shown while it is still to be decoded: decode lanes make it from the latents in no time.

Only for sessions that somebody watches, not for those of the batch class; a lane that nobody watches never learns how. A
preview is dropped where it comes too late, and nothing waits for one.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Coroutine
from typing import Any, Protocol, runtime_checkable

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.spec import SessionSpec
from orchestrator.live.registry import Registry
from orchestrator.ports import Lane, Listener, Ref

log = logging.getLogger("framelane.live")


@runtime_checkable
class Previewing(Protocol):
    """A decode lane that can show latents, beside its work. Its calls raise FramelaneError where it does not answer."""

    @property
    def name(self) -> str: ...
    @property
    def preset(self) -> str | None: ...

    async def learn_preview(self) -> None:
        """From now on previews can be asked for. Comes in turn with the lane's orders, and lasts as little as one."""
        ...

    async def preview(self, latents: Ref) -> tuple[bytes, int] | None:
        """The latent frames beside each other as a JPEG, and how many; None before the lane has learnt."""
        ...


class Previews(Listener):
    """Has decode lanes preview what they will be asked to decode, and tells the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lanes: dict[str, Previewing] = {}
        self._asked: set[asyncio.Task[None]] = set()

    def lane_joined(self, lane: Lane, now: float) -> None:
        if lane.stage == "decode" and isinstance(lane, Previewing):
            self._lanes[lane.name] = lane
            self._begin(self._learn(lane))

    def lane_back(self, lane: Lane, now: float) -> None:
        self.lane_joined(lane, now)

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self._lanes.pop(lane.name, None)

    def lane_left(self, lane: Lane, now: float) -> None:
        self._lanes.pop(lane.name, None)

    def denoised(self, spec: SessionSpec, index: int, latents: Ref, now: float) -> None:
        lane = next((each for each in self._lanes.values() if each.preset in (None, spec.preset)), None)
        if spec.priority == "interactive" and lane is not None:
            self._lanes[lane.name] = self._lanes.pop(lane.name)  # the next one is another lane's turn
            self._begin(self._show(lane, spec.session_id, index, latents))

    async def _learn(self, lane: Previewing) -> None:
        try:
            await lane.learn_preview()
        except FramelaneError as error:
            log.warning("no previews are made: %s", error, extra={"lane": lane.name})

    async def _show(self, lane: Previewing, session_id: str, index: int, latents: Ref) -> None:
        try:
            shown = await lane.preview(latents)
        except FramelaneError as error:  # the engine hears of a lost lane by itself
            log.debug("no preview: %s", error, extra={"lane": lane.name, "session": session_id, "chunk": index})
            return
        if shown is not None:
            picture, frames = shown
            image = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
            self._registry.preview(session_id, index, image, frames)

    def _begin(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(call)
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

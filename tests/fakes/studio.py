"""A service on emulated lanes: they take as long as they are told, and what they make and store is real.

Fragments are encoded, chunks staged, sessions committed in a real store; only the models are left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, generate_latest

from gamecraft_core.base.messages import (
    CommitOrder,
    DecodeOrder,
    DenoiseOrder,
    FailOrder,
    Fragment,
    Order,
    Receipt,
    RestoreOrder,
    WriteOrder,
)
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.store import Store
from gamecraft_core.dataset.chunk_state import restore, stage
from gamecraft_core.dataset.commit import commit_session, fail_session, latents_bytes
from gamecraft_core.media.fragment import encode_fragment
from gamecraft_core.media.jpeg import strip
from jobs.config import resolve
from orchestrator.board import Board
from orchestrator.engine import Engine
from orchestrator.limits import Limits
from orchestrator.live.desk import Desk
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.previews import Previews
from orchestrator.live.reel import Aside
from orchestrator.live.registry import Fetch, Registry
from orchestrator.live.service import LocalService
from orchestrator.live.steps import Step, Steps
from orchestrator.ports import Listener, Ref
from orchestrator.scheduler import Scheduler
from orchestrator.timeline import Timeline
from tests.fakes.lanes import Behaviour, FakeLane
from tests.fakes.recordings import flat_frames, level_of
from tests.fakes.sessions import provenance
from tests.fakes.world import usual

SMALL = ("video.height=32", "video.width=48", "sampling.steps=4")


@cache
def preset(name: str = "tiny-gamecraft") -> Preset:
    return resolve(name, sets=SMALL).preset


@cache
def picture(level: int = 90) -> bytes:
    """A PNG to start from, of one grey."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(flat_frames([level])[0]).save(buffer, "PNG")
    return buffer.getvalue()


def grainy_frames(levels: list[int], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Frames [len(levels), height, width, 3] of noise, so that a chunk has some weight."""
    noise = np.random.default_rng(levels).integers(0, 256, (len(levels), height, width, 3))
    return noise.astype(np.uint8)


Pictures = Callable[[list[int], int, int], npt.NDArray[np.uint8]]


@cache
def fragment(order: DecodeOrder, seed: int, pictures: Pictures) -> Fragment:
    """Of a chunk whose frames tell their numbers and the session's seed: see ``level_of``."""
    levels = [level_of(number, seed) for number in range(order.start_frame, order.start_frame + order.frames)]
    frames = pictures(levels, order.height, order.width)
    return encode_fragment(frames, index=order.place, start_frame=order.start_frame, fps=order.fps)


def made(
    store: Store, order: Order, payloads: tuple[Ref, ...], pictures: Pictures = flat_frames
) -> tuple[Ref, dict[str, Any]]:
    """What a stage makes of ``order``, and puts into ``store``: the payload, and what its receipt says."""
    match order:
        case DenoiseOrder():
            latents = np.full((16, 2, 4, 6), order.index + order.seed, np.float32)
            return latents, {"latents_sha256": hashlib.sha256(latents_bytes(latents)).hexdigest()}
        case DecodeOrder():
            if not order.frames:
                return Fragment(b"", 0, 0), {"payload_bytes": 0}
            seed = int(payloads[0].flat[0]) - order.index
            fragment_ = fragment(replace(order, session_id=""), seed, pictures)
            return fragment_, {"payload_bytes": len(fragment_.data)}
        case WriteOrder():
            record, size = stage(store, order, payloads[0].data, payloads[1])
            return None, {"record": asdict(record), "bytes": size}
        case RestoreOrder():
            found = restore(store, order.keys, order.identity)
            return found.latents, {"chunks": [asdict(record) for record in found.chunks]}
        case CommitOrder():
            given: list[bytes | None] = [None] * len(order.chunks)
            given[-1] = payloads[0].data if payloads else None
            result = commit_session(store, order, given)
            return result.row, {"committed": result.committed} | ({"failure": result.failure} if result.failure else {})
        case FailOrder():
            standing = fail_session(store, order)
            return None, {"failure": standing} if standing else {}
        case _:
            return None, {}


class StudioLane(FakeLane):
    """A fake lane that does what its stage does to the store and to players, and can say how far it is."""

    store: Store
    aside: Aside
    pictures: Pictures
    at: DenoiseOrder | None = None
    since: float = 0.0
    previewed: int = 0
    preview_s: float = 0.0

    async def learn_preview(self) -> None:
        pass

    async def preview(self, latents: Ref) -> tuple[bytes, int] | None:
        """Greys as light as the latents are large."""
        self.previewed += 1
        await asyncio.sleep(self.preview_s)
        return strip(np.repeat(latents[0, ..., None] * 40 % 256, 3, axis=-1).astype(np.uint8)), latents.shape[1]

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        if isinstance(order, DenoiseOrder):
            self.at, self.since = order, asyncio.get_running_loop().time()
        receipt, _ = await super().run(order, payloads)
        self.at = None
        payload, facts = await self.aside(made, self.store, order, payloads, self.pictures)
        receipt.facts.update(facts)
        return receipt, payload

    async def progress(self) -> Step | None:
        if self.at is None:
            return None
        share = (asyncio.get_running_loop().time() - self.since) / usual(self.at)
        return self.at.session_id, self.at.index, int(share * self.at.steps), self.at.steps


async def at_once(call: Callable[..., Any], /, *arguments: Any) -> Any:
    """Files take no virtual time."""
    return call(*arguments)


class Studio:
    """A service on one lane of each stage. A restart is another one on the same store."""

    def __init__(
        self,
        store: Store,
        limits: Limits | None = None,
        service: ServiceLimits | None = None,
        behaviour: Behaviour = usual,
        aside: Aside = at_once,
        stages: Sequence[str] = ("text", "encode", "denoise", "decode", "write"),
        pictures: Pictures = flat_frames,
        fetch: Fetch | None = None,
        served: Sequence[Preset] = (),
    ) -> None:
        """``served``: the first is the default; tiny-gamecraft where none is given."""
        self.store = store
        self.limits = limits or Limits()
        self.service_limits = service or ServiceLimits()
        #: Others that keep the same port may be put in their place before ``start``.
        self.lanes: list[Any] = []
        for number, name in enumerate(stages):
            lane = StudioLane(f"{name}-{number}", name, behaviour)  # type: ignore[arg-type]
            lane.store, lane.aside, lane.pictures = store, aside, pictures
            self.lanes.append(lane)
        #: Why somebody was refused, each time.
        self.refused: list[str] = []
        self.registry = Registry(self.service_limits, fetch or _bytes, self.now, self.refused.append)
        self.timeline = Timeline()
        presets = {each.name: each for each in served or (preset(),)}
        desk = Desk(presets, next(iter(presets)), store, None)
        self.service = LocalService(
            self.registry,
            desk,
            store,
            self.service_limits,
            aside,
            self.now,
            lambda: generate_latest(CollectorRegistry()),
            lambda tenant, seconds: self.timeline.to_json(tenant, time.monotonic() - seconds),
        )

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def start(self) -> None:
        board = Board(self.limits, provenance)
        scheduler = Scheduler(self.limits, board.census)
        steps = Steps(self.registry, self.service_limits.progress_seconds)
        viewers: list[Listener] = [steps, Previews(self.registry)] if self.service_limits.previews else [steps]
        listeners = [self.registry, self.timeline, *viewers]
        self.engine = Engine(self.lanes, board, scheduler, self.limits, None, listeners, self.now)
        for lane in self.lanes:
            for viewer in viewers:
                viewer.lane_joined(lane, self.now())
        await self.service.begin(self.engine)
        self._serving = asyncio.create_task(self.engine.serve())
        self._asking = asyncio.create_task(steps.run())

    async def stop(self) -> bool:
        """As a signal does."""
        self.service.drain()
        self.engine.stop()
        self._asking.cancel()
        return await self._serving

    async def kill(self) -> None:
        """As nobody wants it: nothing is finished."""
        self._serving.cancel()
        self._asking.cancel()
        await asyncio.gather(self._serving, self._asking, return_exceptions=True)

    def denoised(self) -> list[tuple[str, int]]:
        orders = [order for lane in self.lanes for order, _, _ in lane.log if isinstance(order, DenoiseOrder)]
        return [(order.session_id, order.index) for order in orders]


async def _bytes(ref: Fragment) -> bytes:
    return ref.data

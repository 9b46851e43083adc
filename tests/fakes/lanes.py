"""Fake lanes: they take as long as they are told, one order at a time, and answer as real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import (
    ChunkRecord,
    CommitOrder,
    DecodeOrder,
    FailOrder,
    Order,
    PublishOrder,
    Receipt,
    RestoreOrder,
    Stage,
    WriteOrder,
)
from gamecraft_core.dataset import layout
from orchestrator.ports import Ref

#: Seconds an order takes, or the error it ends with (after no time).
Behaviour = Callable[[Order], float | FramelaneError]

#: The records that a restore finds.
Restores = Callable[[RestoreOrder], list[dict[str, Any]]]


@dataclass(eq=False)
class FakeLane:
    """A lane in the running loop's time, one order at a time if ``serial``, with ``after`` seconds beside the next one.

    ``log`` keeps (order, started, ended).
    """

    name: str
    stage: Stage
    behaviour: Behaviour
    preset: str | None = None
    sp_degree: int = 1
    depth: int = 2
    speed: float | None = None
    log: list[tuple[Order, float, float]] = field(default_factory=list)
    restores: Restores = lambda order: []
    serial: bool = True
    after: float = 0.0
    held: int = 0
    most_held: int = 0

    def __post_init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        loop = asyncio.get_running_loop()
        try:
            async with self._turn if self.serial else nullcontext():
                started = loop.time()
                taken = self.behaviour(order)
                if isinstance(taken, FramelaneError):
                    raise taken
                await asyncio.sleep(taken)
            if self.after:
                await asyncio.sleep(self.after)
            self.log.append((order, started, loop.time()))
            return self._receipt(order, started, loop.time()), (self.stage, order, payloads)
        finally:
            self.held -= 1

    def _receipt(self, order: Order, started: float, ended: float) -> Receipt:
        return Receipt(
            stage=self.stage,
            session_id=order.session_id,
            index=getattr(order, "index", 0),
            lane=self.name,
            started=started,
            ended=ended,
            facts={"memory_bytes": 1 << 20, **facts_of(order, self.restores)},
        )


def facts_of(order: Order, restores: Restores = lambda order: []) -> dict[str, Any]:
    """What a real lane's receipt would say of ``order``."""
    match order:
        case DecodeOrder():
            return {"payload_bytes": 10, "frames": order.frames}
        case WriteOrder():
            key = layout.chunk_key(order.session_id, order.index, order.record.sp_degree, "1" * 64)
            record = replace(order.record, staged_key=key, fragment_sha256="1" * 64)
            return {"stored": True, "record": asdict(record), "bytes": 100}
        case CommitOrder():
            return {"stored": True, "committed": True, "bytes": 200}
        case RestoreOrder():
            return {"payload_bytes": 10, "chunks": restores(order)}
        case FailOrder():
            return {"failure": asdict(order)}
        case PublishOrder():
            return {"bytes": 200}
        case _:
            return {"payload_bytes": 10, "latents_sha256": "0" * 64}


def restored(order: RestoreOrder) -> list[dict[str, Any]]:
    """What a store that lost nothing answers: every chunk that was staged."""
    return [asdict(_record_of(key)) for key in sorted(set(order.keys))]


def _record_of(key: str) -> ChunkRecord:
    named = layout.parse_chunk_key(key)
    assert named is not None
    return ChunkRecord(
        index=named.chunk,
        start=named.chunk * 33,
        end=(named.chunk + 1) * 33,
        control={"action": "w", "speed": 0.2},
        seed=1,
        sp_degree=named.sp_degree,
        timings={},
        latents_uri=None,
        latents_sha256="0" * 64,
        staged_key=key,
        fragment_sha256="1" * 64,
    )

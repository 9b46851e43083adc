"""Fake lanes: they take as long as they are told, one order at a time, and answer as real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import CommitOrder, DecodeOrder, Order, PublishOrder, Receipt, Stage, WriteOrder
from orchestrator.ports import Ref

#: Seconds an order takes, or the error it ends with (after no time).
Behaviour = Callable[[Order], float | FramelaneError]


@dataclass(eq=False)
class FakeLane:
    """A serial lane in the running loop's time. ``log`` keeps (order, started, ended)."""

    name: str
    stage: Stage
    behaviour: Behaviour
    preset: str | None = None
    sp_degree: int = 1
    depth: int = 2
    log: list[tuple[Order, float, float]] = field(default_factory=list)
    held: int = 0
    most_held: int = 0

    def __post_init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        loop = asyncio.get_running_loop()
        try:
            async with self._turn:
                started = loop.time()
                taken = self.behaviour(order)
                if isinstance(taken, FramelaneError):
                    raise taken
                await asyncio.sleep(taken)
                self.log.append((order, started, loop.time()))
                return self._receipt(order, started, loop.time()), (self.stage, order, payloads)
        finally:
            self.held -= 1

    def _receipt(self, order: Order, started: float, ended: float) -> Receipt:
        index = getattr(order, "index", 0)
        facts: dict[str, Any] = {"payload_bytes": 10, "latents_sha256": "0" * 64}
        if isinstance(order, DecodeOrder):
            facts["frames"] = order.frames
        elif isinstance(order, WriteOrder):
            facts = {"fragment_key": "k", "fragment_sha256": "1" * 64, "bytes": 100}
        elif isinstance(order, (CommitOrder, PublishOrder)):
            facts = {"kind": type(order).__name__, "bytes": 200}
        return Receipt(
            stage=self.stage,
            session_id=order.session_id,
            index=index,
            lane=self.name,
            started=started,
            ended=ended,
            facts={"memory_bytes": 1 << 20, **facts},
        )

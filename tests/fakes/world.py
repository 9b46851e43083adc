"""A fleet of fake lanes under a virtual clock, with an engine on it, and a ledger of what happened."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import Order, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.board import Board
from orchestrator.engine import Engine, Settled
from orchestrator.limits import Limits
from orchestrator.ports import Keeper, Listener
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from tests.fakes import virtual_time
from tests.fakes.lanes import Behaviour, FakeLane
from tests.fakes.sessions import provenance

SECONDS: dict[str, float] = {
    "TextOrder": 0.5,
    "EncodeOrder": 0.75,
    "RestoreOrder": 0.375,
    "DenoiseOrder": 4.0,
    "DecodeOrder": 1.5,
    "WriteOrder": 0.25,
    "CommitOrder": 0.125,
    "FailOrder": 0.125,
    "PublishOrder": 0.0625,
}


def usual(order: Order) -> float:
    return SECONDS[type(order).__name__]


def failing(times: dict[str, int], error: type[FramelaneError]) -> Any:
    """A behaviour under which the first orders of a kind end with ``error``."""
    left = Counter(times)

    def behaviour(order: Order) -> float | FramelaneError:
        kind = type(order).__name__
        if left[kind] > 0:
            left[kind] -= 1
            return error(f"{kind} met a fault")
        return usual(order)

    return behaviour


class Ledger(Listener):
    """A listener that keeps everything it hears."""

    def __init__(self) -> None:
        self.done: dict[str, FramelaneError | None] = {}
        self.receipts: list[Receipt] = []
        self.lost: list[str] = []
        self.back: list[tuple[str, float]] = []
        self.given_up: list[str] = []
        self.away: list[tuple[str, float]] = []
        self.moved: list[tuple[str, str]] = []
        self.noticed: list[str] = []

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        assert receipt.started >= ready_at
        self.receipts.append(receipt)

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        assert spec.session_id not in self.done, "a session ends once"
        self.done[spec.session_id] = error

    def lane_lost(self, lane: Any, error: FramelaneError, now: float) -> None:
        self.lost.append(lane.name)

    def lane_back(self, lane: Any, now: float) -> None:
        self.back.append((lane.name, now))

    def lane_given_up(self, lane: Any, now: float) -> None:
        self.given_up.append(lane.name)

    def lane_joined(self, lane: Any, now: float) -> None:
        self.moved.append(("joined", lane.name))

    def lane_leaving(self, lane: Any, now: float) -> None:
        self.noticed.append(lane.name)

    def lane_left(self, lane: Any, now: float) -> None:
        self.moved.append(("left", lane.name))

    def store_away(self, stage: Stage, error: FramelaneError, pause: float, now: float) -> None:
        self.away.append((stage, pause))


class World:
    """A fleet of fake lanes and what happened on it. Lanes that a keeper adds belong into ``lanes``."""

    def __init__(self, behaviour: Behaviour = usual, groups: Sequence[int] = (1,), decoders: int = 1) -> None:
        self.lanes: list[FakeLane] = []
        plan: list[tuple[Stage, Iterable[int]]] = [
            ("text", [1]),
            ("encode", [1]),
            ("denoise", groups),
            ("decode", [1] * decoders),
            ("write", [1]),
        ]
        for stage, degrees in plan:
            for number, degree in enumerate(degrees):
                self.lanes.append(FakeLane(f"{stage}-{number}", stage, behaviour, sp_degree=degree))
        self.ledger = Ledger()
        self.makespan = 0.0

    def run(
        self,
        rows: Sequence[SessionSpec | Settled],
        limits: Limits | None = None,
        *,
        keeper: Keeper | None = None,
        staged: Mapping[str, tuple[str, ...]] | None = None,
        **board: Any,
    ) -> bool:
        async def main() -> bool:
            loop = asyncio.get_running_loop()
            used = limits or Limits()
            shards = ShardBook(len(rows), 4)
            self.board = Board(used, provenance, **board)
            scheduler = Scheduler(used, self.board.census)
            self.engine = Engine(
                self.lanes,
                self.board,
                scheduler,
                used,
                shards,
                [self.ledger],
                loop.time,
                keeper=keeper,
                staged=staged,
            )
            try:
                return await self.engine.run(iter(rows))
            finally:
                self.makespan = loop.time()

        return virtual_time.run(main())

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def logged(self, kind: type) -> list[tuple[Any, float, float]]:
        return sorted(
            ((o, a, b) for lane in self.lanes for o, a, b in lane.log if isinstance(o, kind)), key=lambda item: item[1]
        )

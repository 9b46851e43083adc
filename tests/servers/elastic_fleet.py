"""An elastic fleet on an autoscaling cluster, put through its life; prints what happened as one JSON object.

Run as a program, with the cluster's address: it connects to a cluster that no other test may notice. The head has no
room for a denoise group, so every group means a node. First the node of the only group is about to go while the group
works; then there is more work than one group can do, and then hardly any.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import ray

from actors import fleet
from actors.fleet_spec import FleetSpec, GroupSpec
from actors.processes import living_nodes, nodes_of
from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import Receipt
from gamecraft_core.base.spec import SessionSpec
from orchestrator.board import Board
from orchestrator.demand import Pace
from orchestrator.elastic import Elastic
from orchestrator.engine import Engine
from orchestrator.limits import Limits
from orchestrator.ports import Lane, Listener
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from tests.fakes.roles import CHAINED
from tests.fakes.sessions import provenance, session
from tests.ray.fleets import actors, alive, pids, small_preset

SECONDS = {"denoise": 0.25}
SPEC = FleetSpec(name="elastic", denoise=(GroupSpec(sp_degree=2, num_cpus=1, max_groups=2),), room_seconds=120.0)
UNHURRIED = Pace(target_wait_seconds=600.0, patience_seconds=1.0, idle_seconds=600.0, look_seconds=0.2)
NERVOUS = Pace(target_wait_seconds=0.5, patience_seconds=0.2, idle_seconds=1.0, look_seconds=0.2)
_TIMEOUT_S = 120.0


class Story(Listener):
    """What happened in one run, and hooks for what is to happen then."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, int, str, str]] = []
        self.ended: dict[str, str] = {}
        self.moved: list[tuple[str, str]] = []
        self.alive_when_left: dict[str, bool] = {}
        self.pids: dict[str, list[int]] = {}
        self.changed = asyncio.Event()

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        if receipt.stage == "denoise":
            told = str(receipt.facts["latents_sha256"])
            self.chunks.append((receipt.session_id, receipt.index, receipt.lane, told))
            self.changed.set()

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self.ended[spec.session_id] = type(error).__name__

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self._moved("lost", lane)

    def lane_joined(self, lane: Any, now: float) -> None:
        self.pids[lane.name] = []
        self._moved("joined", lane)

    def lane_left(self, lane: Lane, now: float) -> None:
        self.alive_when_left[lane.name] = all(alive(pid) for pid in self.pids[lane.name])
        self._moved("left", lane)

    async def until(self, what: Callable[[], bool]) -> None:
        """Until ``what`` holds; it is asked whenever something happened."""
        while not what():
            self.changed.clear()
            await self.changed.wait()

    def _moved(self, how: str, lane: Lane) -> None:
        self.moved.append((how, lane.name))
        self.changed.set()


class Run:
    """An engine on the fleet's present lanes, and what keeps their number."""

    def __init__(self, kept: fleet.Fleet, pace: Pace, rows: int) -> None:
        limits = Limits(max_sessions=6)
        board = Board(limits, provenance)
        scheduler = Scheduler(limits, board.census)
        self.story = Story()
        self.elastic = Elastic(kept, scheduler, limits, pace, time.time)
        listeners = [self.story, self.elastic]
        shards = ShardBook(rows, 1000)
        self.engine = Engine(kept.lanes, board, scheduler, limits, shards, listeners, time.time, keeper=kept)

    async def over(self, rows: Iterator[SessionSpec], meanwhile: Awaitable[Any]) -> dict[str, Any]:
        """The story of a run over ``rows``, in the course of which ``meanwhile`` must come to its end."""
        async with asyncio.timeout(_TIMEOUT_S), self.elastic.beside(self.engine):
            finished, told = await asyncio.gather(self.engine.run(rows), meanwhile)
        story = self.story
        return {"finished": finished, "chunks": story.chunks, "ended": story.ended, "moved": story.moved, **told}


async def drained(kept: fleet.Fleet, address: str) -> dict[str, Any]:
    """The node of the only group is about to go while the group works off three sessions."""
    run, began = Run(kept, UNHURRIED, 3), time.monotonic()
    story = run.story
    group = _groups(kept)[0]
    (node,) = nodes_of(actors(group))
    there = story.pids[group.name] = pids(group)

    async def meanwhile() -> dict[str, Any]:
        await story.until(lambda: len(story.chunks) >= 2)
        await asyncio.to_thread(announce, address, node)
        await story.until(lambda: len(story.moved) >= 2)
        await _gone(node)
        replaced = [list(nodes_of(actors(lane))) for lane in _groups(kept)]
        return {"moved_to": replaced, "node": node}

    rows = (session(f"s{n}", 6, preset=small_preset().name, row=n + 1) for n in range(3))
    told = await run.over(rows, meanwhile())
    told["alive_when_left"] = story.alive_when_left
    return {**told, "left_alive": [pid for pid in there if alive(pid)], "seconds": time.monotonic() - began}


async def grown_and_shrunk(kept: fleet.Fleet) -> dict[str, Any]:
    """Sessions come until a second group has worked on some; then one is left, until that group's node has gone."""
    run, began = Run(kept, NERVOUS, 1_000_000), time.monotonic()
    story, seconds = run.story, dict[str, float]()
    (first,) = _groups(kept)

    def both() -> bool:
        return len({lane for _, _, lane, _ in story.chunks}) == 2

    def rows() -> Iterator[SessionSpec]:
        preset, number = small_preset().name, 0
        while not both():
            number += 1
            yield session(f"g{number}", 4, preset=preset, row=number)
        yield session("tail", 100_000, preset=preset, row=number + 1)

    async def meanwhile() -> dict[str, Any]:
        await story.until(lambda: ("joined", _second(kept, first)) in story.moved)
        seconds["joined"] = time.monotonic() - began
        second = next(lane for lane in _groups(kept) if lane.name != first.name)
        story.pids[second.name] = pids(second)
        story.pids[first.name] = pids(first)
        nodes = {lane.name: next(iter(nodes_of(actors(lane)))) for lane in (first, second)}
        await story.until(lambda: any(how == "left" for how, _ in story.moved))
        seconds["left"] = time.monotonic() - began
        gone = next(name for how, name in story.moved if how == "left")
        await _gone(nodes[gone])
        seconds["node_gone"] = time.monotonic() - began
        run.engine.cancel("tail")
        return {"nodes": nodes, "gone": gone, "left_alive": [pid for pid in story.pids[gone] if alive(pid)]}

    told = await run.over(rows(), meanwhile())
    return {**told, "seconds": seconds}


def announce(address: str, node: str) -> None:
    """Tell Ray that ``node`` will be taken away, as a cloud's notice does."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int((time.time() + 600) * 1000)
    accepted, why = GcsClient(address=address).drain_node(node, reason, "the spot market", deadline)
    if not accepted:
        raise RuntimeError(f"Ray refused to drain {node}: {why}")


async def _gone(node: str) -> None:
    """Until the cluster has taken ``node`` away, which it does when nothing is on it."""
    async with asyncio.timeout(_TIMEOUT_S):
        while node in await asyncio.to_thread(living_nodes):
            await asyncio.sleep(0.1)


def _groups(kept: fleet.Fleet) -> list[Any]:
    return [lane for lane in kept.lanes if lane.stage == "denoise"]


def _second(kept: fleet.Fleet, first: Lane) -> str | None:
    return next((lane.name for lane in _groups(kept) if lane.name != first.name), None)


async def _told(address: str) -> Mapping[str, Any]:
    began = time.monotonic()
    kept = await fleet.start(SPEC, [small_preset()], "memory://tests", {"seconds": SECONDS}, CHAINED)
    try:
        started = time.monotonic() - began
        return {"drained": await drained(kept, address), "grown": await grown_and_shrunk(kept), "started": started}
    finally:
        kept.close()


def main(address: str) -> None:
    ray.init(address=address, namespace="elastic", log_to_driver=False, logging_level=logging.ERROR)
    logging.basicConfig(level=logging.INFO)
    try:
        print(json.dumps(asyncio.run(_told(address))), flush=True)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

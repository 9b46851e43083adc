"""The scheduler on real Ray actors whose stages sleep: how near the makespan comes to what no schedule can beat.

64 sessions of 8 chunks; 8 denoise lanes of 0.2 s, 2 decoders of 0.05 s, 2 writers: denoise and decode are both exactly
saturated, so whatever is lost between orders shows. The lower bound is made of the seconds that the stages themselves
measured. Beside it stand the same lanes used in the reference's order: a lane takes its next chunk when the one before
is stored.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from actors import fleet
from actors.fleet_spec import FleetSpec, GroupSpec, LaneSpec, WriteSpec
from actors.role import Role, answering
from gamecraft_core.base.messages import STAGES, Order, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from jobs.config import resolve
from orchestrator.board import Board
from orchestrator.engine import Engine
from orchestrator.limits import Limits
from orchestrator.ports import Lane, Listener
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from tests.bench.harness import Bench
from tests.fakes.lanes import facts_of
from tests.fakes.sessions import provenance, session
from tests.servers.cluster import local_cluster

ROOT = Path(__file__).resolve().parents[2]
SESSIONS, CHUNKS = 64, 8
SECONDS: dict[Stage, float] = {"text": 0.002, "encode": 0.002, "denoise": 0.2, "decode": 0.05, "write": 0.01}
LATENT_BYTES = 4 << 20
SAMPLES = 3
GOAL_BARE, GOAL_LATENTS, GOAL_GAIN = 1.04, 1.06, 1.2

PRESET = resolve("tiny-gamecraft").preset
SPEC = FleetSpec(
    name="emulated",
    denoise=(GroupSpec(groups=8, num_cpus=0),),
    decode=LaneSpec(lanes=2, num_cpus=0),
    text=LaneSpec(num_cpus=0),
    encode=LaneSpec(num_cpus=0),
    write=WriteSpec(lanes=2, num_cpus=0, depth=2),
)


class SleepingActor(Role):
    """A lane of any stage: an order takes its stage's time, one after the other, and brings what a real one brings."""

    def __init__(self, lane: str, *arguments: Any) -> None:
        stage: Any = lane.partition("-")[0]
        super().__init__(stage, lane)
        options: Mapping[str, Any] = next(each for each in arguments if isinstance(each, dict))
        self._latents = np.zeros(options["latent_bytes"], np.uint8) if options["latent_bytes"] else None
        self._turn = threading.Lock()

    def join(self, address: str | None) -> dict[str, Any]:
        return {}

    def warm(self) -> dict[str, Any]:
        return self.ping()

    @answering
    def run(self, order: Order, *payloads: Any) -> tuple[Receipt, Any]:
        with self._turn:
            return self.carry(order, lambda: self._sleep(order))

    def _sleep(self, order: Order) -> tuple[Any, dict[str, Any]]:
        time.sleep(SECONDS[self._stage])
        return (self._latents if self._stage in ("encode", "denoise") else None), facts_of(order)


class Stopwatch(Listener):
    """Seconds inside each stage, order by order."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, list[float]] = {stage: [] for stage in STAGES}

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        self.seconds[receipt.stage].append(receipt.seconds)

    def lower_bound(self, lanes: Mapping[Stage, int]) -> float:
        """The busiest stage without a gap, after the shortest way to it and before the shortest way on."""
        ways: list[Stage] = ["encode", "denoise", "decode", "write"]
        least = {stage: min(self.seconds[stage]) for stage in ways}
        return max(
            sum(self.seconds[stage]) / lanes[stage] + sum(least[other] for other in ways if other != stage)
            for stage in ways
        )


async def _run(lanes: Sequence[Lane], *, pipelined: bool) -> tuple[float, float]:
    """(makespan, lower bound) in seconds."""
    watch = Stopwatch()
    rows = [_session(number) for number in range(SESSIONS)]
    began = time.perf_counter()
    await (_pipelined if pipelined else _one_after_the_other)(lanes, rows, watch)
    makespan = time.perf_counter() - began
    return makespan, watch.lower_bound({stage: sum(lane.stage == stage for lane in lanes) for stage in STAGES})


@asynccontextmanager
async def _fleet(latent_bytes: int) -> AsyncIterator[Sequence[Lane]]:
    roles: dict[Stage, type] = dict.fromkeys(STAGES, SleepingActor)
    options = {"latent_bytes": latent_bytes}
    started = await fleet.start(SPEC, [PRESET], "memory://emulated", options, roles)
    try:
        yield started.lanes
    finally:
        started.close()


def _session(number: int) -> SessionSpec:
    """Prompts differ, so that no session waits for another's."""
    return session(f"s{number}", CHUNKS, preset=PRESET.name, row=number + 1, prompt=f"place {number}")


async def _pipelined(lanes: Sequence[Lane], rows: Sequence[SessionSpec], watch: Stopwatch) -> None:
    limits = Limits()
    board = Board(limits, provenance)
    scheduler = Scheduler(limits, board.census)
    shards = ShardBook(len(rows), 1000)
    if not await Engine(lanes, board, scheduler, limits, shards, [watch], time.time).run(iter(rows)):
        raise RuntimeError("the run did not finish")


async def _one_after_the_other(lanes: Sequence[Lane], rows: Sequence[SessionSpec], watch: Stopwatch) -> None:
    """Each denoise lane works off whole sessions, and a chunk is stored before the next begins."""
    limits = Limits()
    board = Board(limits, provenance)
    free: dict[Stage, asyncio.Queue[Lane]] = {stage: asyncio.Queue() for stage in STAGES}
    for lane in lanes:
        free[lane.stage].put_nowait(lane)
    waiting = iter(rows)

    async def work(denoiser: Lane) -> None:
        for spec in waiting:
            ready = board.admit(spec, 0.0, time.time())
            while ready:
                task = ready.pop(0)
                lane = denoiser if task.stage == "denoise" else await free[task.stage].get()
                receipt, ref = await lane.run(*board.order(task))
                if lane is not denoiser:
                    free[lane.stage].put_nowait(lane)
                watch.settled(spec, receipt, task.ready_at, time.time())
                # what its own chunk still needs goes before the next chunk's denoise
                ready += board.settle(task, receipt, ref, lane.sp_degree, time.time())
                ready.sort(key=lambda each: each.kind == "denoise")

    await asyncio.gather(*(work(lane) for lane in lanes if lane.stage == "denoise"))


async def _measured() -> dict[str, list[tuple[float, float]]]:
    """(makespan, lower bound) by kind of run; the kinds take turns."""
    made: dict[str, list[tuple[float, float]]] = {"bare": [], "latents": [], "in order": []}
    async with _fleet(0) as bare, _fleet(LATENT_BYTES) as latents:
        for _ in range(SAMPLES):
            made["bare"].append(await _run(bare, pipelined=True))
            made["latents"].append(await _run(latents, pipelined=True))
            made["in order"].append(await _run(bare, pipelined=False))
    return made


def figures(bench: Bench) -> None:
    """Measure and add the figures to ``bench``."""
    with local_cluster(ROOT):
        made = asyncio.run(_measured())
    for name, kind, goal in (("bare", "bare", GOAL_BARE), ("4mb_latents", "latents", GOAL_LATENTS)):
        bench.figure(f"makespan_over_bound_{name}", [span / bound for span, bound in made[kind]], "x", goal=goal)
    gains = [slow / fast for (slow, _), (fast, _) in zip(made["in order"], made["bare"], strict=True)]
    bench.figure("gain_over_one_after_the_other", gains, "x", goal=GOAL_GAIN, better="higher")

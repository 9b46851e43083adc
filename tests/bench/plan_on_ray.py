"""The planner's predictions against real runs: layouts predicted, then run as fleets of Ray actors whose stages sleep.

The prediction is the one that fills a plan's row. The fleet is the one that the planner would write, started by the
fleet's own code; the engine runs it. Emulated are the seconds of the stages and the sharing of cards (``emulated``).
What the planner leaves out, dispatch among it, is in the measured makespan only.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors import fleet
from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import STAGES
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.costs.figure import Figure
from jobs.config import resolve
from jobs.plan_fleet import fleet_of
from orchestrator.board import Board
from orchestrator.engine import Engine
from orchestrator.plan.layouts import Layout, seats
from orchestrator.plan.load import Load, simulate
from orchestrator.plan.predict import lanes_of
from orchestrator.ports import Lane, Listener
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from tests.bench.emulated import EmulatedActor, options, placed
from tests.bench.harness import Bench
from tests.fakes.sessions import provenance, session
from tests.servers.cluster import local_cluster

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.05
LOSS = 0.05
#: Predicted seconds of every run.
TARGET_S = 12.0
#: Of the emulated host: as many as the largest fleet reserves.
CPUS, GPUS = 64, 8

#: Of mixed degrees only those whose outcome does not hang on milliseconds: see decision 9.
LAYOUTS = (
    Layout(((1, 1),)),
    Layout(((1, 1),), decode_cards=1),
    Layout(((2, 1),), text="host"),
    Layout(((1, 4),)),
    Layout(((1, 3),), decode_cards=1, text="host"),
    Layout(((2, 3),), decode_cards=2),
    Layout(((2, 3),), decode_cards=2, spread=2),
    Layout(((4, 1), (1, 3)), decode_cards=1),
    Layout(((4, 1), (2, 2))),
    Layout(((4, 2),)),
    Layout(((8, 1),)),
    Layout(((1, 8),)),
)


def load(layout: Layout) -> Load:
    """At least sixteen chunks a lane: with few, the makespan jumps by a whole one where lanes finish together.

    And not many more, so that stages stay long beside what it takes to dispatch them.
    """
    return Load(sessions=8 if layout.lanes == 1 else 16 if layout.lanes <= 3 else 32, chunks=4)


@dataclass(frozen=True)
class Chunk:
    """A denoise that is all work."""

    seconds: Figure
    apart: float = 0.0


@dataclass(frozen=True)
class Emulated:
    """Costs in proportions as of a real model; ``scale`` is a denoise's seconds on one card."""

    scale: float

    def text(self, *, host: bool = False, offloaded: bool = False) -> Figure:
        return self._figure(0.06 if host else 0.03)

    def encode(self) -> Figure:
        return self._figure(0.02)

    def decode(self, devices: int = 1, *, continuing: bool = True) -> Figure:
        return self._figure(0.2 / devices)

    def encode_video(self) -> Figure:
        return self._figure(0.1)

    def write(self) -> Figure:
        return self._figure(0.05)

    def denoise(self, degree: int = 1, *, split: bool = False, continuing: bool = True) -> Chunk:
        """A group of eight is as efficient as seven tenths of its cards, as published of H100."""
        return Chunk(self._figure((1.0 if continuing else 0.5) / degree**0.83))

    def _figure(self, share: float) -> Figure:
        return Figure(self.scale * share, "assumed", "emulated")


def predicted(layout: Layout, costs: Emulated) -> float:
    """Makespan in seconds, on the way on which a plan's row is predicted."""
    return simulate(lanes_of(layout, costs), load(layout), LOSS).makespan


class Clock(Listener):
    """From the first session's admission to the last one's end."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def admitted(self, spec: SessionSpec, now: float) -> None:
        self.began = self.began or now

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self.ended = now


async def measured(layout: Layout, costs: Emulated) -> tuple[float, bool]:
    """Makespan in seconds on the planned fleet, and whether every lane lay on the cards it was planned for."""
    spec = fleet_of(layout, 1, gpus=True, text_cores=16, name="planned", description="")
    preset = resolve("tiny-gamecraft").preset
    with tempfile.TemporaryDirectory(prefix="fl-cards-") as folder:
        told = options(Path(folder), lanes_of(layout, costs), LOSS)
        started = await fleet.start(spec, [preset], "memory://", told, dict.fromkeys(STAGES, EmulatedActor))
        try:
            clock = Clock()
            await _run(started.lanes, preset.name, load(layout), clock)
            planned = {f"{seat.stage}-{seat.number}": seat.cards for seat in seats(layout) if seat.cards}
            return clock.ended - clock.began, placed(Path(folder)) == planned
        finally:
            await started.dismiss()


async def _run(lanes: Sequence[Lane], preset: str, full: Load, clock: Clock) -> None:
    limits = full.limits
    board = Board(limits, provenance)
    rows = [
        session(f"s{number}", full.chunks, preset=preset, row=number + 1, prompt=f"place {number}")
        for number in range(full.sessions)
    ]
    scheduler, shards = Scheduler(limits, board.census), ShardBook(len(rows), 1000)
    if not await Engine(lanes, board, scheduler, limits, shards, [clock], time.time).run(iter(rows)):
        raise RuntimeError("the run did not finish")


def figures(bench: Bench) -> None:
    """Predict and measure every layout, and add the ratios to ``bench``."""
    ratios, as_planned = [], 0
    with local_cluster(ROOT, cpus=CPUS, gpus=GPUS):
        for layout in LAYOUTS:
            costs = Emulated(TARGET_S / predicted(layout, Emulated(1.0)))
            makespan, in_place = asyncio.run(measured(layout, costs))
            as_planned += in_place
            ratios.append(makespan / predicted(layout, costs))
            bench.figure(f"measured_over_predicted, {layout.name}", ratios[-1], "1")
    bench.figure("layouts_placed_as_planned", as_planned / len(LAYOUTS), "1", better="higher")
    bench.figure("plan_prediction_error", max(abs(ratio - 1) for ratio in ratios), "1", goal=GOAL)

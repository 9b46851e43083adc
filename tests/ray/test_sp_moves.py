"""A session that changes its sequence-parallel degree at every chunk ends where one that stays does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from actors import fleet
from gamecraft_core.base.messages import Order, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from jobs.config import resolve
from jobs.run import Carry, Request, run
from jobs.signals import Stopper
from jobs.work import Work
from orchestrator.engine import Settled
from orchestrator.ports import Lane, Ref
from tests.ray.runs import SMALL, Finished, manifest, row
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray

DEGREES = [1, 2, 4]
ACTIONS = "w left_rot:2 d s w+a up_rot"
#: Degrees differ by rounding only (float32).
ATOL = 1e-4


@dataclass(frozen=True, eq=False)
class Baton:
    """A denoise lane that leaves the fleet with its first order's end, when the next one of ``ring`` joins it."""

    lane: Lane
    ring: list[Baton]
    stopper: Stopper

    @property
    def name(self) -> str:
        return self.lane.name

    @property
    def stage(self) -> Stage:
        return self.lane.stage

    @property
    def preset(self) -> str | None:
        return self.lane.preset

    @property
    def sp_degree(self) -> int:
        return self.lane.sp_degree

    @property
    def depth(self) -> int:
        return self.lane.depth

    @property
    def speed(self) -> float | None:
        return self.lane.speed

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        answer = await self.lane.run(order, payloads)
        engine = self.stopper.engine
        assert engine is not None
        engine.roster.add(self.ring[(self.ring.index(self) + 1) % len(self.ring)])
        engine.roster.drain(self)
        return answer


async def passed_on(work: Work, rows: Iterator[SessionSpec | Settled]) -> bool:
    """Carry the run out with one denoise group in the fleet at a time: the degrees take turns, chunk by chunk."""
    presets = list(work.config.presets.values())
    started = await fleet.start(work.config.fleet, presets, work.store.root, work.config.store.model_dump())
    stopper, ring = Stopper(), list[Baton]()
    try:
        groups = {lane.sp_degree: lane for lane in started.lanes if lane.stage == "denoise"}
        ring += [Baton(groups[degree], ring, stopper) for degree in DEGREES]
        others = [lane for lane in started.lanes if lane.stage != "denoise"]
        return await work.on_lanes([*others, ring[0]], started.facts, started, rows, stopper)
    finally:
        started.close()


def of(folder: Path, degrees: list[int], carry: Carry, *settings: str) -> Finished:
    """One session of six chunks on groups of ``degrees``."""
    rows = manifest(folder, [row("walk", ACTIONS, seed=9)])
    spec = folder / "fleet.yaml"
    spec.write_text("name: moves\ndenoise:\n" + "".join(f"  - {{sp_degree: {degree}}}\n" for degree in degrees))
    config = resolve("tiny-gamecraft", str(spec), [*SMALL, *settings], keep_latents=True)
    request = Request(config=config, manifest=str(rows), out=str(folder / "out"), metrics_port=0)
    return Finished(run(request, carry), folder / "out")


def test_a_session_moved_between_degrees_ends_where_it_would(ray_cluster: RayCluster, tmp_path: Path) -> None:
    still = of(tmp_path / "still", [1], Work.on_cluster)
    moved = of(tmp_path / "moved", DEGREES, passed_on, "output.allow_sp_moves=true")
    assert (still.status, moved.status) == (0, 0)
    assert [chunk["sp_degree"] for chunk in still.rows()["walk"]["chunks"]] == [1] * 6
    assert [chunk["sp_degree"] for chunk in moved.rows()["walk"]["chunks"]] == DEGREES * 2
    apart = [np.abs(a - b).max() for a, b in zip(still.latents("walk"), moved.latents("walk"), strict=True)]
    assert max(apart) < ATOL, f"largest difference by chunk: {apart}"

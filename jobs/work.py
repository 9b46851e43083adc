"""The part of a run that needs a cluster: fleet up, engine through, fleet down."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from gamecraft_core.base.messages import Provenance
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import Store
from gamecraft_core.base.telemetry import Telemetry
from gamecraft_core.base.tracing import open_spans
from gamecraft_core.base.version import code_version
from gamecraft_core.dataset.chunk_state import resumable
from jobs.config import RunConfig
from jobs.finish import Report
from jobs.metrics_server import serve_metrics
from jobs.progress import Progress
from jobs.signals import Stopper
from orchestrator.board import Board, ProvenanceOf
from orchestrator.demand import Pace
from orchestrator.elastic import Elastic
from orchestrator.engine import Engine, Settled
from orchestrator.manifest.manifest import Survey
from orchestrator.metrics import Metrics
from orchestrator.ports import Keeper, Lane, Listener, Yard
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from orchestrator.timeline import Timeline
from orchestrator.tracing import Traces

log = logging.getLogger("framelane.run")


def provenance_from(facts: Mapping[str, Mapping[str, str]]) -> ProvenanceOf:
    """What rows say of where their pixels come from; ``facts`` are each preset's weights and hardware."""

    def provenance(spec: SessionSpec, sp_degree: int) -> Provenance:
        return Provenance(
            preset=spec.preset,
            code_version=code_version(),
            steps=spec.steps,
            guidance=spec.guidance,
            shift=spec.shift,
            sp_degree=sp_degree,
            **facts[spec.preset],
        )

    return provenance


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that the engine is put together from."""

    config: RunConfig
    address: str | None
    metrics_port: int
    store: Store
    survey: Survey
    shards: ShardBook
    report: Report
    timeline: Timeline
    staged: Mapping[str, Sequence[str]]
    telemetry: Telemetry = field(default_factory=Telemetry)

    async def on_cluster(self, rows: Iterator[SessionSpec | Settled]) -> bool:
        """Start the fleet, run the engine on it, take it down. True when every row settled."""
        from actors import fleet
        from actors.cluster import connected

        presets = list(self.config.presets.values())
        with connected(self.config.fleet, len(presets), self.address):
            stopper = Stopper()
            stopper.listen()
            try:
                started = await fleet.start(
                    self.config.fleet,
                    presets,
                    self.store.root,
                    self.config.store.model_dump(),
                    telemetry=self.telemetry,
                )
                try:
                    done = await self.on_lanes(started.lanes, started.facts, started, rows, stopper, yard=started)
                    await started.flush()
                    return done
                finally:
                    started.close()
            except asyncio.CancelledError:
                if stopper.called_off:
                    raise KeyboardInterrupt from None
                raise
            finally:
                stopper.hand_back()

    async def on_lanes(
        self,
        lanes: Sequence[Lane],
        facts: Mapping[str, Mapping[str, str]],
        keeper: Keeper,
        rows: Iterator[SessionSpec | Settled],
        stopper: Stopper,
        *,
        yard: Yard | None = None,
    ) -> bool:
        """Run the engine on ``lanes``; ``facts`` are what rows say of each preset's weights and hardware.

        Without a ``yard`` the lanes are those that there are.
        """
        limits, output = self.config.limits, self.config.output
        board = Board(
            limits, provenance_from(facts), keep_latents=output.keep_latents, allow_sp_moves=output.allow_sp_moves
        )
        scheduler = Scheduler(limits, board.census)
        metrics = Metrics(lanes, scheduler, time.time())
        metrics.refused(self.survey.bad)
        metrics.job(self.survey.rows, self.survey.chunks, lambda: self.report.before.settled)
        progress = Progress(self.survey, lambda: self.report.before, scheduler.lanes, scheduler.busy)
        listeners: list[Listener] = [self.report, self.timeline, metrics, progress]
        pace = Pace(**self.config.fleet.elastic.model_dump())
        elastic = None if yard is None else Elastic(yard, scheduler, limits, pace, time.time)
        if elastic is not None:
            listeners.append(elastic)
        degrees = None if output.allow_sp_moves else {lane.sp_degree for lane in lanes if lane.stage == "denoise"}
        staged = {name: resumable(keys, degrees) for name, keys in self.staged.items()}
        spans = open_spans(self.telemetry, "control")
        traces = None if spans is None else Traces(spans)
        if traces is not None:
            listeners.append(traces)
        engine = Engine(
            lanes,
            board,
            scheduler,
            limits,
            self.shards,
            listeners,
            time.time,
            keeper=keeper,
            staged=staged,
            traces=traces,
        )
        metrics.attach(engine)
        stopper.engine = engine
        beside = nullcontext() if elastic is None else elastic.beside(engine)
        with serve_metrics(metrics.registry, self.metrics_port) as url, progress:
            log.info("metrics at %s", url)
            self.report.begin(self.store, url)
            try:
                async with beside:
                    return await engine.run(rows)
            finally:
                if traces is not None:
                    traces.close()

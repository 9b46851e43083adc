"""One run from manifest to dataset: the wiring between orchestrator, actors and store.

claim the output -> connect -> start the fleet -> run the engine -> publish what remains to be told. Everything durable
is written through the store; a run that ends half way is continued by the same command.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gamecraft_core.base import logs
from gamecraft_core.base.errors import FramelaneError, OutputTaken, UsageError
from gamecraft_core.base.ids import check_id, digest
from gamecraft_core.base.messages import STAGES, Provenance, Stage
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.base.version import code_version
from gamecraft_core.dataset import claim, layout
from jobs import finish
from jobs.config import RunConfig, identity, public, with_endpoint
from jobs.metrics_server import serve_metrics
from jobs.progress import Progress
from orchestrator.board import Board
from orchestrator.engine import Engine, Settled
from orchestrator.manifest.manifest import Manifest, Survey
from orchestrator.manifest.rows import RowErrors
from orchestrator.metrics import Metrics
from orchestrator.ports import Lane, Listener
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from orchestrator.timeline import Timeline

log = logging.getLogger("framelane.run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asked for."""

    config: RunConfig
    manifest: str
    out: str
    address: str | None = None
    run_id: str | None = None
    strict: bool = False
    metrics_port: int = 9108


@dataclass(slots=True)
class History:
    """What earlier starts of this run left in the output."""

    committed: set[str] = field(default_factory=set)
    failures: dict[str, finish.Failure] = field(default_factory=dict)
    published: set[int] = field(default_factory=set)


def run(request: Request) -> int:
    """Carry out ``request``; returns the exit status. Raises UsageError before anything starts, RunAborted later."""
    logs.setup()
    request = replace(request, config=with_endpoint(request.config, os.environ))
    config, started = request.config, time.time()
    manifest = Manifest(request.manifest, config.presets, config.preset.name, config.store.model_dump())
    survey = manifest.survey()
    if request.strict and survey.bad:
        listed = "; ".join(str(error) for error in survey.errors[:10])
        raise UsageError(
            f"{survey.bad} of {survey.rows} rows are wrong: {listed}", field="manifest", remedy="mend them"
        )
    store = open_store(request.out, config.store.model_dump())
    record = _claim(request, store, manifest)
    past = _history(store)
    report = finish.Report(record, survey.rows, started, past.failures)
    shards = ShardBook(survey.rows, config.output.rows_per_shard, past.published)
    rows = _source(manifest, past, report)
    if shards.published == shards.total and _all_settled(manifest, past):
        log.info("nothing to do: every row of run %s has settled", record["run_id"])
        deque(rows, maxlen=0)
        return report.conclude(store, finished=True, timeline=None)
    timeline = Timeline()
    work = _Work(request, store, survey, past, shards, report, timeline)
    try:
        finished = asyncio.run(work.on_cluster(rows))
    except FramelaneError:
        report.aborted(store, timeline)
        raise
    return report.conclude(store, finished=finished, timeline=timeline)


@dataclass(frozen=True, slots=True)
class _Work:
    """The part of a run that needs a cluster."""

    request: Request
    store: Store
    survey: Survey
    past: History
    shards: ShardBook
    report: finish.Report
    timeline: Timeline

    async def on_cluster(self, rows: Iterator[SessionSpec | Settled]) -> bool:
        """Start the fleet, run the engine on it, take it down. True when every row settled."""
        from actors import fleet
        from actors.cluster import connected

        config = self.request.config
        options = config.store.model_dump()
        with connected(config.fleet, self.request.address):
            lanes = await fleet.start(config.fleet, list(config.presets.values()), self.store.root, options)
            try:
                return await self._run(lanes.lanes, lanes.facts, rows)
            finally:
                lanes.close()

    async def _run(
        self, lanes: Sequence[Lane], facts: Mapping[str, Mapping[str, str]], rows: Iterator[SessionSpec | Settled]
    ) -> bool:
        config, output = self.request.config, self.request.config.output

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

        board = Board(config.limits, provenance, keep_latents=output.keep_latents, allow_sp_moves=output.allow_sp_moves)
        scheduler = Scheduler(config.limits, lambda: board.payload_bytes)
        counts: dict[Stage, int] = {stage: sum(lane.stage == stage for lane in lanes) for stage in STAGES}
        metrics = Metrics(counts, scheduler.waiting, time.time())
        metrics.refused(self.survey.bad)
        progress = Progress(self.survey, len(self.past.committed), counts, scheduler.busy)
        listeners: list[Listener] = [self.report, self.timeline, metrics, progress]
        engine = Engine(lanes, board, scheduler, config.limits, self.shards, listeners, time.time)
        _stop_on_signals(engine)
        with serve_metrics(metrics.registry, self.request.metrics_port) as url, progress:
            log.info("metrics at %s", url)
            self.report.begin(self.store, url)
            return await engine.run(rows)


def _claim(request: Request, store: Store, manifest: Manifest) -> dict[str, object]:
    """Make the output ours; the record that run.json holds."""
    what = {"manifest_sha256": manifest.sha256(), **identity(request.config)}
    run_id = check_id(request.run_id, "run-id") if request.run_id else f"run-{digest(what)}"
    record: dict[str, object] = {
        "run_id": run_id,
        "status": "running",
        "identity": what,
        "manifest": manifest.uri,
        "config": public(request.config),
        "code_version": code_version(),
    }
    claimed = claim.claim(store, record)
    if claimed.resumed and request.run_id and request.run_id != claimed.run_id:
        raise OutputTaken(
            f"{store.root} belongs to run {claimed.run_id}, not {request.run_id}",
            field="run-id",
            remedy="leave --run-id out, or choose another output",
        )
    record["run_id"] = claimed.run_id
    if claimed.resumed:
        log.info("continuing run %s", claimed.run_id)
    return record


def _history(store: Store) -> History:
    past = History()
    for key in store.list(layout.COMMITS):
        past.committed.add(key.rpartition("/")[2].removesuffix(".parquet"))
    for key in store.list(layout.FAILURES):
        failure = json.loads(store.get(key))
        past.failures[failure["session_id"]] = finish.Failure(**failure)
    for key in store.list(layout.DATA):
        past.published.add(int(key.rpartition("/")[2].split("-")[1]))
    return past


def _all_settled(manifest: Manifest, past: History) -> bool:
    return all(
        isinstance(row, RowErrors) or row.session_id in past.committed or row.session_id in past.failures
        for row in manifest.rows()
    )


def _source(manifest: Manifest, past: History, report: finish.Report) -> Iterator[SessionSpec | Settled]:
    """The manifest's rows as the engine takes them: sessions to run, and rows that have settled already."""
    for row in manifest.rows():
        name = row.session_id
        if name in past.committed:
            report.found(row.row, name)
            yield Settled(row.row, name, committed=True)
        elif isinstance(row, RowErrors):
            report.refused(row)
            yield Settled(row.row, name, committed=False)
        elif name in past.failures:
            yield Settled(row.row, name, committed=False)
        else:
            yield row


def _stop_on_signals(engine: Engine) -> None:
    """The first SIGTERM or SIGINT ends the run in order; the second ends the process."""
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        log.warning("%s: finishing what runs; a second one ends at once", number.name)
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
        engine.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)

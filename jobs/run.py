"""One run from manifest to dataset: claim the output, do what is left to do, tell how it went.

Everything durable is written through the store; a run that ends half way is continued by the same command, and a
finished one does nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain

from gamecraft_core.base import logs
from gamecraft_core.base.errors import FramelaneError, OutputTaken, UsageError
from gamecraft_core.base.ids import check_id, digest
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import Store, open_store, scheme_of
from gamecraft_core.base.version import code_version
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.errors_table import ErrorRow
from gamecraft_core.dataset.shards import publish
from jobs.config import RunConfig, identity, public, with_endpoint
from jobs.finish import Report
from jobs.work import Work
from orchestrator.engine import Settled
from orchestrator.manifest.manifest import Manifest
from orchestrator.manifest.rows import RowErrors
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
class Past:
    """What earlier starts of this run left in the output."""

    committed: set[str] = field(default_factory=set)
    failures: dict[str, ErrorRow] = field(default_factory=dict)
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
    store = _output(request)
    record, claimed = _claim(request, store, manifest)
    past = _past(store)
    report = Report(record, survey.rows, started)
    shards = ShardBook(survey.rows, config.output.rows_per_shard, past.published)
    timeline = Timeline()
    rows = _source(manifest, past, report)
    before, first = _to_the_first_session(rows)
    if first is None:
        return _nothing_to_run(store, before, shards, report, timeline, closed=claimed.status == "finished")
    work = Work(config, request.address, request.metrics_port, store, survey, shards, report, timeline)
    try:
        finished = asyncio.run(work.on_cluster(chain(before, [first], rows)))
    except asyncio.CancelledError:
        finished = False
    except FramelaneError:
        if claimed.resumed or report.made_anything:
            report.aborted(store, timeline)
        else:
            store.delete(layout.RUN)  # a run that could not start does not keep the output from another
        raise
    report.write(store, timeline, finished=finished)
    report.show(store, timeline.overlap_ratio(), finished=finished)
    return report.status(finished=finished)


def _nothing_to_run(
    store: Store, before: Iterable[Settled], shards: ShardBook, report: Report, timeline: Timeline, *, closed: bool
) -> int:
    """Every row has settled: publish what is not yet published, here, and write what the last start left unwritten."""
    for row in before:
        publication = shards.committed(row.row, row.session_id, None) if row.committed else shards.failed(row.row)
        if publication is not None:
            publish(store, publication.order)
    if closed:
        log.info("nothing to do: every row has settled")
    else:
        report.write(store, timeline, finished=True)
    report.show(store, None, finished=True)
    return report.status(finished=True)


def _output(request: Request) -> Store:
    if scheme_of(request.out) == "memory":
        raise UsageError("memory:// does not outlive its process", field="out", remedy="give a folder or an s3:// URI")
    return open_store(request.out, request.config.store.model_dump())


def _claim(request: Request, store: Store, manifest: Manifest) -> tuple[dict[str, object], claim.ClaimResult]:
    """Make the output ours; the record that run.json holds, and how it was found."""
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
    return record, claimed


def _past(store: Store) -> Past:
    past = Past()
    for key in store.list(layout.COMMITS):
        past.committed.add(key.rpartition("/")[2].removesuffix(".parquet"))
    for key in store.list(layout.FAILURES):
        failure = ErrorRow(**json.loads(store.get(key)))
        past.failures[failure.session_id] = failure
    for key in store.list(layout.DATA):
        past.published.add(int(key.rpartition("/")[2].split("-")[1]))
    return past


def _source(manifest: Manifest, past: Past, report: Report) -> Iterator[SessionSpec | Settled]:
    """The manifest's rows as the engine takes them: sessions to run, and rows that have settled already.

    A row whose id repeats an earlier one was refused for that; the record under that id is the earlier row's.
    """
    seen: set[str] = set()
    for row in manifest.rows():
        name = row.session_id
        first = name not in seen
        seen.add(name)
        chunks = row.num_chunks if isinstance(row, SessionSpec) else 0
        if first and name in past.committed:
            report.found_committed(chunks)
            yield Settled(row.row, name, committed=True)
        elif isinstance(row, RowErrors):
            report.found_failed((ErrorRow(**asdict(error)) for error in row.errors), 0)
            yield Settled(row.row, name, committed=False)
        elif name in past.failures:
            report.found_failed([past.failures[name]], chunks)
            yield Settled(row.row, name, committed=False)
        else:
            yield row


def _to_the_first_session(rows: Iterator[SessionSpec | Settled]) -> tuple[list[Settled], SessionSpec | None]:
    """Rows up to the first that has to run, and that one; None where all have settled."""
    before: list[Settled] = []
    for row in rows:
        if isinstance(row, SessionSpec):
            return before, row
        before.append(row)
    return before, None

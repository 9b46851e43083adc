"""One run from manifest to dataset: claim the output, do what is left to do, tell how it went.

Everything durable is written through the store; a run that ends half way is continued by the same command, and a
finished one does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, groupby
from typing import Any

from gamecraft_core.base import logs
from gamecraft_core.base.access import Access
from gamecraft_core.base.ahead import ahead
from gamecraft_core.base.errors import FramelaneError, OutputTaken, UsageError
from gamecraft_core.base.ids import check_id, digest
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import Store, open_store, scheme_of
from gamecraft_core.base.store_patient import PatientStore
from gamecraft_core.base.version import code_version
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.errors_table import ErrorRow
from gamecraft_core.dataset.shards import publish
from jobs.config import RunConfig, identity, public, with_endpoint
from jobs.finish import Report
from jobs.work import Work
from orchestrator.engine import Settled
from orchestrator.manifest.manifest import Manifest, Repeated, Survey
from orchestrator.manifest.rows import RowErrors
from orchestrator.shard_book import ShardBook
from orchestrator.timeline import Timeline

log = logging.getLogger("framelane.run")

#: Carries the rows through a fleet; True when every row settled.
Carry = Callable[[Work, Iterator[SessionSpec | Settled]], Coroutine[Any, Any, bool]]


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
    """What earlier starts of this run left in the output: ``failed`` is a part of ``settled``.

    ``staged`` are the keys of chunks, in order, by sessions that have not settled.
    """

    settled: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    published: set[int] = field(default_factory=set)
    staged: dict[str, tuple[str, ...]] = field(default_factory=dict)


def run(request: Request, carry: Carry = Work.on_cluster) -> int:
    """Carry out ``request``; returns the exit status. Raises UsageError before anything starts, RunAborted later."""
    logs.setup(request.config.telemetry.logs)
    request = replace(request, config=with_endpoint(request.config, os.environ))
    config, started = request.config, time.time()
    manifest = Manifest(request.manifest, config.presets, config.preset.name, config.store.model_dump())
    what = {"manifest_sha256": manifest.sha256(), **identity(config)}
    store = _output(request)
    survey = _survey(request, manifest, claim.look(store, what))
    record, claimed = _claim(request, store, manifest, what, survey)
    telemetry = config.telemetry.of(claimed.run_id)
    logs.setup(telemetry.logs, run=telemetry.run)
    limits = config.limits
    patient = PatientStore(store, limits.max_outage_seconds, limits.backoff)
    past = _past(patient)
    report = Report(record, survey.rows, started)
    shards = ShardBook(survey.rows, config.output.rows_per_shard, past.published)
    timeline = Timeline()
    rows = _source(manifest, past, report, shards)
    before, first = _to_the_first_session(rows)
    if first is None:
        return _nothing_to_run(patient, before, shards, report, timeline, closed=claimed.status == "finished")
    work = Work(
        config, request.address, request.metrics_port, patient, survey, shards, report, timeline, past.staged, telemetry
    )
    try:
        finished = asyncio.run(carry(work, chain(before, [first], rows)))
    except asyncio.CancelledError:
        finished = False
    except FramelaneError:
        if claimed.resumed or report.made_anything:
            report.aborted(store, timeline)
        else:
            store.delete(layout.RUN)  # a run that could not start does not keep the output from another
        raise
    report.write(patient, timeline, finished=finished)
    report.show(patient, timeline.overlap_ratio(), finished=finished)
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
    options = request.config.store.model_dump()
    Access.of(options).check(request.out, "out")
    return open_store(request.out, options)


def _survey(request: Request, manifest: Manifest, found: claim.ClaimResult | None) -> Survey:
    """What the manifest holds: as an earlier start noted it, or read from end to end."""
    noted = found.survey if found and not request.strict else None
    if noted and noted.keys() == _noted(Survey(0, 0, 0, 0, 0, ())).keys():
        return Survey(errors=(), **noted)
    survey = manifest.survey()
    if request.strict and survey.bad:
        listed = "; ".join(str(error) for error in survey.errors[:10])
        raise UsageError(
            f"{survey.bad} of {survey.rows} rows are wrong: {listed}", field="manifest", remedy="mend them"
        )
    return survey


def _noted(survey: Survey) -> dict[str, int]:
    """``survey`` without its errors, for run.json."""
    return {name: value for name, value in asdict(survey).items() if name != "errors"}


def _claim(
    request: Request, store: Store, manifest: Manifest, what: dict[str, Any], survey: Survey
) -> tuple[dict[str, object], claim.ClaimResult]:
    """Make the output ours; the record that run.json holds, and how it was found."""
    run_id = check_id(request.run_id, "run-id") if request.run_id else f"run-{digest(what)}"
    record: dict[str, object] = {
        "run_id": run_id,
        "status": "running",
        "identity": what,
        "manifest": manifest.uri,
        "survey": _noted(survey),
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
        log.info("continuing run %s", claimed.run_id, extra={"run": claimed.run_id})
    return record, claimed


def _past(store: Store) -> Past:
    """From names, and of sessions with a failure from their records, which decide.

    Failures are listed after records: whatever is seen as a tombstone has its failure by then. One without a tombstone
    was left by a writer that died or lost against a commit: it says nothing of its session, so it goes.
    """
    from gamecraft_core.dataset.rows import read_failure

    def failed(key: str) -> str | None:
        name = _name(key)
        if name in past.settled and read_failure(store.get(layout.commit_key(name))) is not None:
            return name
        store.delete(key)
        return None

    past = Past()
    past.settled.update(_name(key) for key in store.list(layout.COMMITS))
    past.failed.update(name for name in ahead(failed, store.list(layout.FAILURES)) if name)
    past.published.update(int(_name(key).split("-")[1]) for key in store.list(layout.DATA))
    for session_id, keys in groupby(store.list(layout.STAGING), lambda key: key.split("/")[1]):
        if session_id not in past.settled:
            past.staged[session_id] = tuple(keys)
    return past


def _name(key: str) -> str:
    """A key's last part without its ending."""
    return key.rpartition("/")[2].rpartition(".")[0]


def _source(manifest: Manifest, past: Past, report: Report, shards: ShardBook) -> Iterator[SessionSpec | Settled]:
    """The manifest's rows as the engine takes them: sessions to run, and settled rows that a shard still waits for.

    A row whose id repeats an earlier one was refused for that; the record under that id is the earlier row's.
    """
    for row in manifest.rows(past.settled):
        name, closed = row.session_id, shards.closed(row.row)
        chunks = row.num_chunks if isinstance(row, SessionSpec) else 0
        settled = name in past.settled and not isinstance(row, Repeated)
        committed = settled and name not in past.failed
        if committed:
            report.found_committed(chunks)
        elif settled:
            report.found_failed(row.row, name, chunks)
        elif isinstance(row, RowErrors):
            report.refused(ErrorRow(**asdict(error)) for error in row.errors)
        elif closed:
            report.refused([_too_late(row)], chunks)
        else:
            yield row
            continue
        if not closed:
            yield Settled(row.row, name, committed=committed)


def _too_late(spec: SessionSpec) -> ErrorRow:
    """A row that was refused when its shard was published, and would be accepted now (its image has come, say)."""
    return ErrorRow(
        row=spec.row,
        session_id=spec.session_id,
        field="row",
        stage="validate",
        reason="the row was wrong when its shard was published, and a published shard never changes",
        remedy="run it into another output",
    )


def _to_the_first_session(rows: Iterator[SessionSpec | Settled]) -> tuple[list[Settled], SessionSpec | None]:
    """Rows up to the first that has to run, and that one; None where all have settled."""
    before: list[Settled] = []
    for row in rows:
        if isinstance(row, SessionSpec):
            return before, row
        before.append(row)
    return before, None

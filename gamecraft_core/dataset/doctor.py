"""Looking an output over and removing its orphans, beside a run that may be going on. Imports pyarrow: import it late.

What is an orphan says ``audit``. Only orphans are removed: nothing that a record names is touched. Every removal stands
for itself and can be repeated, so a repair that dies half way is finished by another.

Beside a live run:

- An orphan younger than the given age is left alone, for its record may be on the way. Once run.json says ``finished``
  every session has settled, no record can come, and age does not matter. Should the run go on all the same, the repair
  stops.
- A video's key is its content: a session under way (most likely the one whose writer died between video and record)
  may make the very bytes of an orphan, find them stored, and name them. So right before videos are removed the records
  are read that have come since the listing, and what they name stays. A writer that found the video before this look
  and puts its record after the removal then puts the video again (see ``commit``).
- Latents and staged chunks belong to one session by their key and are orphans only when that session has settled, or
  its run has finished; they need no second look.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import pyarrow as pa

from gamecraft_core.base.ahead import ahead
from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.messages import PublishOrder
from gamecraft_core.base.store import Inspectable, Leftover, Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.audit import Audit, Finding, Kind, Record, RunFacts, Unsettled, settled_by
from gamecraft_core.dataset.claim import RUN_VERSION
from gamecraft_core.dataset.rows import encode_failure, read_failure, read_table
from gamecraft_core.dataset.shards import publish

_BATCH = 1000
_EXAMPLES = 1000
_FACTS = ["session_id", "row", "video_path", "video_sha256", "video_bytes"]
_LATENTS = "chunks.list.element.latents_uri"
_UNREADABLE = (pa.ArrowException, ValueError, KeyError, TypeError, OSError)


def read_run(store: Store) -> RunFacts:
    """What run.json says. Raises UsageError where there is none, or none that this release can read."""
    try:
        run = json.loads(store.get(layout.RUN))
        if run["version"] != RUN_VERSION:
            raise UsageError(
                f"{store.uri(layout.RUN)} has version {run['version']!r}, and this program reads {RUN_VERSION}",
                field="out",
                remedy="use the release that wrote it",
            )
        counts = run["counts"] if run["status"] == "finished" else {"rows": 0, "committed": 0}
        per_shard = int(run["identity"]["output"]["rows_per_shard"])
        return RunFacts(str(run["run_id"]), run["status"], per_shard, int(counts["rows"]), int(counts["committed"]))
    except FileNotFoundError:
        raise UsageError(f"{store.root} has no {layout.RUN}", field="out", remedy="name a run's output") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{store.uri(layout.RUN)} is not a run's record", field="out", remedy="name a run's output"
        ) from error


class StoredRecords:
    """The records in a store. Raises UsageError where a newer release wrote one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def published(self, shard: str) -> Iterator[Record] | None:
        data = self._store.get(shard)
        try:
            return _records(_read(data))
        except _UNREADABLE:
            return None

    def settled(self, session_ids: Iterable[str]) -> Iterator[tuple[str, Record | Unsettled]]:
        return ahead(lambda session_id: (session_id, self._one(session_id)), session_ids)

    def _one(self, session_id: str) -> Record | Unsettled:
        try:
            data = self._store.get(layout.commit_key(session_id))
        except FileNotFoundError:
            return Unsettled.ABSENT
        try:
            if read_failure(data) is not None:
                return Unsettled.FAILED
            (record,) = _records(_read(data))
        except _UNREADABLE:
            return Unsettled.UNREADABLE
        return record if record.session_id == session_id else Unsettled.UNREADABLE


def _read(data: bytes) -> pa.Table:
    table = read_table(data, [*_FACTS, _LATENTS]).select([*_FACTS, "chunks"])
    if any(table[name].null_count for name in table.column_names):
        raise ValueError("not rows of sessions")
    return table


def _records(table: pa.Table) -> Iterator[Record]:
    for batch in table.to_batches(_BATCH):
        for row in batch.to_pylist():
            uris = [chunk["latents_uri"] for chunk in row.pop("chunks")]
            # By their last two names: the output may have been moved since.
            latents = tuple("/".join((layout.LATENTS, *uri.split("/")[-2:])) for uri in uris if uri)
            yield Record(**row, latents=latents)


@dataclass(slots=True)
class Tally:
    """Of one kind: what was found, what was too young to judge, what is mended, and the first of them."""

    found: int = 0
    size: int = 0
    young: int = 0
    mended: int = 0
    examples: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Diagnosis:
    """What was found, and what became of it."""

    run: RunFacts
    audit: Audit
    tallies: dict[Kind, Tally] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Nothing is wrong, or no longer."""
        return all(kind.cure == "ignore" or tally.found == tally.mended for kind, tally in self.tallies.items())

    def spared(self, finding: Finding, horizon: float) -> bool:
        """The finding would be removed, but came after ``horizon``: it is only counted."""
        if finding.kind.cure != "remove" or finding.modified <= horizon:
            return False
        self._of(finding).young += 1
        return True

    def add(self, finding: Finding) -> None:
        tally = self._of(finding)
        tally.found += 1
        tally.size += finding.size
        if len(tally.examples) < _EXAMPLES:
            tally.examples.append(finding)

    def _of(self, finding: Finding) -> Tally:
        return self.tallies.setdefault(finding.kind, Tally())


def examine(store: Inspectable, *, now: float, min_age: float, verify: bool = False, repair: bool = False) -> Diagnosis:
    """Look ``store`` over; ``min_age`` in seconds. ``verify`` reads every artifact, ``repair`` removes the orphans."""
    run = read_run(store)
    audit = Audit(run, StoredRecords(store))
    horizon = math.inf if run.finished or not min_age else now - min_age
    diagnosis = Diagnosis(run, audit)
    found = audit.findings(store.scan(""), store.leftovers())
    if verify:
        found = chain(found, _unlike(store, audit))
    ripe = (finding for finding in found if not diagnosis.spared(finding, horizon))
    for batch in iter(lambda: list(islice(ripe, _BATCH)), []):
        named = _named_since(store, audit, batch) if repair else set()
        wrong = [finding for finding in batch if finding.key not in named]
        for finding in wrong:
            diagnosis.add(finding)
        for kind in _mend(store, [each for each in wrong if each.kind.curable]) if repair else ():
            diagnosis.tallies[kind].mended += 1
    diagnosis.tallies = {kind: diagnosis.tallies[kind] for kind in Kind if kind in diagnosis.tallies}
    return diagnosis


def _unlike(store: Store, audit: Audit) -> Iterator[Finding]:
    """Artifacts whose bytes are not those of the record's digest. Latents have its beginning in their key."""

    def wrong(named: tuple[str, str, str]) -> Finding | None:
        session_id, key, sha256 = named
        try:
            data = store.get(key)
        except FileNotFoundError:  # gone since the listing
            return Finding(Kind.MISSING, key, session=session_id)
        actual = hashlib.sha256(data).hexdigest()
        if actual.startswith(sha256):
            return None
        return Finding(Kind.WRONG, key, len(data), session=session_id, detail=f"sha256 {actual}")

    named = (
        (record.session_id, key, record.video_sha256 if key == record.video_path else key.split(".")[-2])
        for record in audit.all_records()
        for key in record.artifacts
        if audit.whole(key)
    )
    return (finding for finding in ahead(wrong, named) if finding)


def _named_since(store: Store, audit: Audit, batch: Sequence[Finding]) -> set[str]:
    """Of the videos in ``batch`` those that a record names which came after the audit's listing.

    Raises UsageError where the run was finished and is not any more.
    """
    if audit.run.finished:
        if not read_run(store).finished:
            raise UsageError(f"run {audit.run.run_id} goes on meanwhile", field="out", remedy="run the doctor again")
        return set()
    videos = {finding.key for finding in batch if finding.kind is Kind.VIDEO}
    if not videos:
        return set()
    settled = filter(None, map(settled_by, store.list(layout.COMMITS)))
    since = dict(audit.records.settled(session_id for session_id in settled if session_id not in audit.settled))
    if Unsettled.UNREADABLE in since.values():
        return videos
    return videos & {record.video_path for record in since.values() if isinstance(record, Record)}


def _mend(store: Inspectable, batch: Sequence[Finding]) -> Iterator[Kind]:
    """Remove or make what each finding is about; the kinds of those that are mended."""
    return (kind for kind in ahead(lambda finding: _mend_one(store, finding), batch) if kind)


def _mend_one(store: Inspectable, finding: Finding) -> Kind | None:
    try:
        match finding.kind:
            case Kind.SHARD:
                index, total = map(int, re.findall(r"\d{5,}", finding.key))
                name = f"shard-{index:05d}"
                publish(store, PublishOrder(session_id=name, shard=index, total=total, stored=finding.sessions))
            case Kind.UNINDEXED:
                failure = read_failure(store.get(finding.key)) or {}
                store.put_if_absent(layout.failure_key(finding.session), encode_failure(failure))
            case Kind.LEFTOVER:
                store.discard(Leftover(finding.key, finding.size, finding.modified, finding.upload))
            case _:
                store.delete(finding.key)
    except FileNotFoundError:  # a record was removed meanwhile, by nobody of ours
        return None
    return finding.kind

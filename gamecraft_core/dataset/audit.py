"""What is wrong with an output: orphans, shards that are missing, and damage, from one listing and the records.

Pure: listings and records come as values, findings go out one by one, so that a million sessions cost a set of their
ids and eight bytes' worth of digest for every artifact, never a list of what lies there.

Entries come in the order of their keys. That puts what settles a session (``_commits``) before what may wait for it
(``_staging``), and records before what they name (``latents``, ``videos``): bytes are stored before the record that
names them, so a record seen here whose artifact is not listed after it has truly lost it, even while a run goes on.

An object is an orphan when nothing can come to need it:

- a staged chunk, when its session has settled or its run has finished;
- latents, when the record of their session has settled without naming them, or their run has finished;
- a video, when no record names it (a session under way may still come to: see ``doctor``);
- a failure's entry, when its session is committed, or its run finished without a tombstone for it.

While one record cannot be read, no video and no latents are called orphans: it may be what names them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import Literal, NamedTuple, Protocol

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.ids import check_id
from gamecraft_core.base.store import Entry, Leftover
from gamecraft_core.dataset import layout

Cure = Literal["remove", "make", "none", "ignore"]

_COPY = "restore them from a copy, or delete the sessions' commit records and run the same command again"
_PUBLISH = "delete that shard; --repair (or, of an unfinished run, the same command again) publishes it anew"
_AGAIN = "run the same command again: it makes them as they were"

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_COMMIT = re.compile(rf"{layout.COMMITS}/({_NAME})\.parquet")
_FAILURE = re.compile(rf"{layout.FAILURES}/({_NAME})\.json")
_STAGED = re.compile(rf"{layout.STAGING}/({_NAME})/{_NAME}")
_LATENTS = re.compile(rf"{layout.LATENTS}/({_NAME})/{_NAME}")
_SHARD = re.compile(rf"{layout.DATA}/train-(\d{{5,9}})-of-\d{{5,9}}\.parquet")
_VIDEO = re.compile(rf"{layout.VIDEOS}/([0-9a-f]{{64}})\.mp4")
_ROOT_FILES = (layout.RUN, layout.ERRORS, layout.TIMELINE, layout.CONTACT_SHEET)


class Kind(Enum):
    """What can be found: its name, in words, whether a repair removes it or makes it (or it is damage), the remedy."""

    def __init__(self, code: str, what: str, cure: Cure, remedy: str = "") -> None:
        self.code, self.what, self.cure, self.remedy = code, what, cure, remedy
        self.curable = cure in ("remove", "make")

    STAGED = "staged", "staged chunks that no session needs", "remove"
    FAILURE = "failure", "failure entries of sessions that did not fail", "remove"
    LATENTS = "latents", "latents that no record names", "remove"
    VIDEO = "video", "videos that no record names", "remove"
    LEFTOVER = "leftover", "hidden files and unfinished uploads", "remove"
    SHARD = "shard", "shards missing from a finished run", "make"
    UNINDEXED = "unindexed", "failed sessions without a failure entry", "make"
    MISSING = "missing", "videos and latents that a record names and that are gone", "none", _COPY
    WRONG = "wrong", "videos and latents that are not what their record says", "none", _COPY
    UNREADABLE = "unreadable", "commit records that cannot be read (so no video is an orphan)", "none", _COPY
    BROKEN_SHARD = "broken-shard", "shards that cannot be read", "none", _PUBLISH
    LEFT_OUT = "left-out", "committed sessions that the shard of their slice lacks", "none", _PUBLISH
    REPEATED = "repeated", "sessions published more than once", "none", "delete the shard that is one too many"
    UNRECORDED = "unrecorded", "published sessions without a commit record", "none", _AGAIN
    LOST = "lost", "committed sessions of which nothing is left", "none", _AGAIN
    UNKNOWN = "unknown", "objects that no run makes", "ignore"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``modified``, ``upload``: see Leftover. ``sessions``: a missing shard's, in order."""

    kind: Kind
    key: str
    size: int = 0
    modified: float = 0.0
    session: str = ""
    detail: str = ""
    upload: str = ""
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What run.json says: ``rows`` and ``committed`` only of a finished run; 0 is not known."""

    run_id: str
    status: str
    rows_per_shard: int = 0
    rows: int = 0
    committed: int = 0

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @property
    def shards(self) -> range:
        """The numbers of a finished run's shards."""
        return range(max(1, -(-self.rows // self.rows_per_shard)) if self.finished and self.rows_per_shard else 0)

    def slice_of(self, row: int) -> int | None:
        """The number of the shard that manifest row ``row`` belongs to."""
        return (row - 1) // self.rows_per_shard if self.rows_per_shard else None


class Record(NamedTuple):
    """What a committed session's record names. ``latents`` are keys."""

    session_id: str
    row: int
    video_path: str
    video_sha256: str
    video_bytes: int
    latents: tuple[str, ...] = ()

    @property
    def artifacts(self) -> tuple[str, ...]:
        return (self.video_path, *self.latents)


class Unsettled(Enum):
    """Why a session has no record of a committed session."""

    FAILED = "a tombstone"
    ABSENT = "nothing there"
    UNREADABLE = "not a record"


class Records(Protocol):
    """The records of an output."""

    def published(self, shard: str) -> Iterator[Record] | None:
        """The rows of a shard; None where it cannot be read."""
        ...

    def settled(self, session_ids: Iterable[str]) -> Iterator[tuple[str, Record | Unsettled]]:
        """What ``_commits`` says of each of the sessions."""
        ...


@dataclass(slots=True)
class Audit:
    """One look over an output. After ``findings`` is exhausted its sets and counts are complete."""

    run: RunFacts
    records: Records
    settled: set[str] = field(default_factory=set)
    published: int = 0
    failed: int = 0
    unrecorded: int = 0
    shards: dict[str, int] = field(default_factory=dict)
    _broken: set[int] = field(default_factory=set)
    _unpublished: set[str] = field(default_factory=set)
    _failures: dict[str, Entry] = field(default_factory=dict)
    _named: dict[int, int] = field(default_factory=dict)
    _wrong: dict[int, int] = field(default_factory=dict)
    _blind: bool = False

    @property
    def committed(self) -> int:
        """Sessions: those with a record, and those that only a shard still knows."""
        return len(self.settled) - self.failed + self.unrecorded

    def findings(self, entries: Iterable[Entry], leftovers: Iterable[Leftover]) -> Iterator[Finding]:
        """Everything that is wrong; ``entries`` are the whole output's, in the order of their keys."""
        unread = True
        for folder, group in groupby(entries, key=lambda entry: entry.key.partition("/")[0]):
            if unread and folder >= layout.LATENTS:
                unread = False
                yield from self._read_records()
            yield from self._folder(folder, group)
        if unread:
            yield from self._read_records()
        yield from self._damaged()
        for left in leftovers:
            yield Finding(Kind.LEFTOVER, left.key, left.size, left.modified, upload=left.upload)

    def all_records(self) -> Iterator[Record]:
        """The record of every committed session, once more."""
        for shard in self.shards:
            yield from self.records.published(shard) or ()
        for _, found in self.records.settled(sorted(self._unpublished)):
            if isinstance(found, Record):
                yield found

    def whole(self, key: str) -> bool:
        """A named artifact is there, with the right number of bytes."""
        mark = _mark(key)
        return mark not in self._named and mark not in self._wrong

    def _folder(self, folder: str, group: Iterable[Entry]) -> Iterator[Finding]:
        for entry in group:
            match folder:
                case layout.COMMITS if name := settled_by(entry.key):
                    self.settled.add(name)
                case layout.FAILURES if name := _match(_FAILURE, entry.key):
                    self._failures[name] = entry
                case layout.DATA if name := _match(_SHARD, entry.key):
                    self.shards[entry.key] = int(name)
                case layout.STAGING if name := _match(_STAGED, entry.key):
                    if self._over(name):
                        yield Finding(Kind.STAGED, *entry, name)
                case layout.LATENTS if name := _match(_LATENTS, entry.key):
                    if not self._seen(entry) and self._over(name) and not self._blind:
                        yield Finding(Kind.LATENTS, *entry, name)
                case layout.VIDEOS if _match(_VIDEO, entry.key):
                    if not self._seen(entry) and not self._blind:
                        yield Finding(Kind.VIDEO, *entry)
                case layout.SESSIONS | layout.INPUTS:
                    pass  # a service's: what it promised, and what it was sent
                case _ if entry.key not in _ROOT_FILES:
                    yield Finding(Kind.UNKNOWN, *entry)

    def _over(self, session_id: str) -> bool:
        """Nothing more will be made of the session."""
        return self.run.finished or session_id in self.settled

    def _seen(self, entry: Entry) -> bool:
        """Whether a record names the entry; one of the wrong size is noted."""
        mark = _mark(entry.key)
        size = self._named.pop(mark, None)
        if size not in (None, -1, entry.size):
            self._wrong[mark] = entry.size
        return size is not None

    def _read_records(self) -> Iterator[Finding]:
        yield from self._read_shards()
        yield from self._read_unpublished()
        if self.run.finished:
            for session_id, entry in self._failures.items():
                if session_id not in self.settled:
                    yield Finding(Kind.FAILURE, *entry, session_id, "no tombstone")
        self._failures.clear()
        if self.run.committed > self.committed and not self._blind:
            yield Finding(Kind.LOST, layout.RUN, detail=f"{self.committed} of {self.run.committed} are left")

    def _read_shards(self) -> Iterator[Finding]:
        self._unpublished = set(self.settled)
        for shard, index in self.shards.items():
            rows = self.records.published(shard)
            if rows is None:
                self._broken.add(index)
                yield Finding(Kind.BROKEN_SHARD, shard)
            for record in rows or ():
                self._name(record)
                self.published += 1
                session_id = record.session_id
                yield from self._not_failed(session_id)
                if session_id in self._unpublished:
                    self._unpublished.remove(session_id)
                elif session_id in self.settled:
                    yield Finding(Kind.REPEATED, shard, session=session_id)
                elif self._unrecorded(session_id):
                    self.unrecorded += 1
                    yield Finding(Kind.UNRECORDED, shard, session=session_id)

    def _read_unpublished(self) -> Iterator[Finding]:
        """The records that no shard holds: failures, sessions of open slices, and of missing shards."""
        there = set(self.shards.values())
        rows: dict[int, list[tuple[int, str]]] = {index: [] for index in self.run.shards if index not in there}
        for session_id, found in self.records.settled(sorted(self._unpublished)):
            key = layout.commit_key(session_id)
            if isinstance(found, Record):
                self._name(found)
                yield from self._not_failed(session_id)
                index = self.run.slice_of(found.row)
                if index in there - self._broken:
                    yield Finding(Kind.LEFT_OUT, key, session=session_id, detail=f"shard {index}")
                elif index in rows:
                    rows[index].append((found.row, session_id))
            elif found is Unsettled.FAILED:
                self.failed += 1
                if session_id not in self._failures:
                    yield Finding(Kind.UNINDEXED, key, session=session_id)
            elif found is Unsettled.UNREADABLE:
                self._blind = True
                yield Finding(Kind.UNREADABLE, key, session=session_id)
        for index, members in rows.items() if not self._blind else ():
            sessions = tuple(session_id for _, session_id in sorted(members))
            yield Finding(Kind.SHARD, layout.shard_key(index, len(self.run.shards)), sessions=sessions)

    def _not_failed(self, session_id: str) -> Iterator[Finding]:
        """A committed session's failure entry: its writer lost the race for the record and died there."""
        if (entry := self._failures.pop(session_id, None)) is not None:
            yield Finding(Kind.FAILURE, *entry, session_id, "committed")

    def _unrecorded(self, session_id: str) -> bool:
        """Its record is not there now either: a run under way may have put it since the listing."""
        return any(found is Unsettled.ABSENT for _, found in self.records.settled([session_id]))

    def _name(self, record: Record) -> None:
        self._named[_mark(record.video_path)] = record.video_bytes
        for key in record.latents:
            self._named[_mark(key)] = -1

    def _damaged(self) -> Iterator[Finding]:
        """Named artifacts that were not seen, or not as their record says: only now, whose they are."""
        for record in self.all_records() if self._named or self._wrong else ():
            for key in record.artifacts:
                mark = _mark(key)
                if mark in self._named:
                    yield Finding(Kind.MISSING, key, session=record.session_id)
                elif mark in self._wrong:
                    detail = f"{self._wrong[mark]} bytes, not {record.video_bytes}"
                    yield Finding(Kind.WRONG, key, self._wrong[mark], session=record.session_id, detail=detail)


def settled_by(key: str) -> str | None:
    """The session whose record ``key`` is; None where it is no record's."""
    return _match(_COMMIT, key)


def _match(pattern: re.Pattern[str], key: str) -> str | None:
    """The session (or number) in a key as runs make it; None for any other."""
    found = pattern.fullmatch(key)
    try:
        return check_id(found[1]) if found else None
    except BadInput:
        return None


def _mark(key: str) -> int:
    """A key's digest, small enough to hold one for every artifact. Were two equal, an orphan would stay: no harm."""
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest())

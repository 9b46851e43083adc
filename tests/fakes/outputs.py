"""A small real output: sessions committed and failed, shards published, run.json written; and strangers in it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gamecraft_core.base.messages import CommitOrder, FailOrder
from gamecraft_core.base.store import Inspectable, Store
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.audit import Kind
from gamecraft_core.dataset.commit import commit_session, fail_session, put_latents
from gamecraft_core.dataset.doctor import Diagnosis, examine
from gamecraft_core.dataset.rows import read_table
from gamecraft_core.dataset.shards import publish_shard
from tests.fakes.recordings import staged_order

ROWS_PER_SHARD = 2
#: By manifest row, from 1. The third fails; row 6 was refused and has no session.
NAMES = ("alpha", "beta.v2", "gone", "delta", "echo")
ROWS = 6
COMMITTED = tuple(name for name in NAMES if name != "gone")
SHARDS = tuple(layout.shard_key(index, 3) for index in range(3))


def run_record(status: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "run_id": "run-1",
        "status": status,
        "identity": {"output": {"rows_per_shard": ROWS_PER_SHARD}},
    }
    if status == "finished":
        record["counts"] = {"rows": ROWS, "committed": len(COMMITTED), "failed": ROWS - len(COMMITTED)}
    return record


def order_of(store: Store, name: str, row: int) -> CommitOrder:
    """A session staged whole, its first chunk's latents kept."""
    order = staged_order(store, name, 2, chunk_frames=5, row=row, seed=row)
    kept = put_latents(store, name, 0, np.full((16, 2, 4, 6), row, np.float32))
    first = replace(order.chunks[0], latents_uri=store.uri(kept.key), latents_sha256=kept.sha256)
    return replace(order, chunks=(first, *order.chunks[1:]))


def fill(store: Store, status: str = "finished") -> None:
    """Write the output of a run in ``status``, with all of its shards."""
    claim.claim(store, run_record("running"))
    rows: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    for row, name in enumerate(NAMES, 1):
        order = order_of(store, name, row) if name != "gone" else None
        if order is None:
            failure = {"field": "image", "stage": "encode", "reason": "damaged", "remedy": "another"}
            fail_session(store, FailOrder(session_id=name, row=row, **failure))
        else:
            result = commit_session(store, order, [None] * len(order.chunks))
            rows[(row - 1) // ROWS_PER_SHARD].append(result.row)
    for index, records in rows.items():
        publish_shard(store, index, len(SHARDS), records)
    claim.finish(store, run_record(status))


def published(store: Store) -> Iterator[dict[str, Any]]:
    """Every row that readers see."""
    for key in store.list(layout.DATA):
        yield from read_table(store.get(key)).to_pylist()


def assert_readable(store: Store) -> None:
    """Every committed session is published once, and its artifacts are what its row says."""
    rows = list(published(store))
    assert [row["session_id"] for row in rows] == list(COMMITTED)
    for row in rows:
        assert hashlib.sha256(store.get(row["video_path"])).hexdigest() == row["video_sha256"]
        for chunk in row["chunks"]:
            if chunk["latents_uri"]:
                latents = store.get("/".join((layout.LATENTS, *chunk["latents_uri"].split("/")[-2:])))
                assert hashlib.sha256(latents).hexdigest() == chunk["latents_sha256"]


DIGEST = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Plant:
    """An object that does not belong, and of which runs it is an orphan: every, finished (ones), or none."""

    key: str
    kind: Kind
    orphan: str


PLANTS = (
    Plant(layout.chunk_key("alpha", 0, 1, DIGEST), Kind.STAGED, "every"),
    Plant(layout.chunk_key("gone", 7, 2, DIGEST), Kind.STAGED, "every"),
    Plant(layout.chunk_key("unborn", 0, 1, DIGEST), Kind.STAGED, "finished"),
    Plant(layout.latents_key("delta", 0, DIGEST), Kind.LATENTS, "every"),
    Plant(layout.latents_key("gone", 0, DIGEST), Kind.LATENTS, "every"),
    Plant(layout.latents_key("unborn", 0, DIGEST), Kind.LATENTS, "finished"),
    Plant(layout.video_key(DIGEST), Kind.VIDEO, "every"),
    Plant(layout.video_key(DIGEST[::-1]), Kind.VIDEO, "every"),
    Plant(layout.failure_key("beta.v2"), Kind.FAILURE, "every"),
    Plant(layout.failure_key("unborn"), Kind.FAILURE, "finished"),
    Plant("videos/.tmp-1234", Kind.LEFTOVER, "every"),
    Plant(".tmp-5678", Kind.LEFTOVER, "every"),
    Plant("notes.txt", Kind.UNKNOWN, "none"),
    Plant("data.old/train-00000-of-00001.parquet", Kind.UNKNOWN, "none"),
    Plant("videos/walk.mp4", Kind.UNKNOWN, "none"),
    Plant("latents/stray.f32", Kind.UNKNOWN, "none"),
    Plant("_commits/..odd.parquet", Kind.UNKNOWN, "none"),
    Plant("_staging/Ünborn/000000", Kind.UNKNOWN, "none"),
)


def plant(folder: Path, key: str, age: float = 0.0, data: bytes = b"planted") -> None:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def look(store: Inspectable, *, min_age: float = 0, verify: bool = False, repair: bool = False) -> Diagnosis:
    return examine(store, now=time.time(), min_age=min_age, verify=verify, repair=repair)


def found(diagnosis: Diagnosis) -> dict[Kind, set[str]]:
    return {
        kind: {finding.key for finding in tally.examples} for kind, tally in diagnosis.tallies.items() if tally.found
    }


def sessions(diagnosis: Diagnosis, kind: Kind) -> set[str]:
    return {finding.session for finding in diagnosis.tallies[kind].examples}

"""Is an output exactly what an undisturbed run leaves? Everything that is wrong with it, one line each.

Nothing is taken on the product's word: keys come from a listing of our own, rows from the Parquet files, digests from
the bytes. What a session holds is compared with the reference run at the session's own sequence-parallel degree.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from tests.chaos.bucket import Bucket

Row = Mapping[str, Any]

#: What a run may say differently of the same session: where it lies, who made it, and how long it took.
_PLACES = ("video", "code_version")
_CHUNK_FACTS = ("timings", "latents_uri")

_CLOSING = ("run.json", "errors.parquet", "timeline.json", "contact_sheet.png")
_SHARD = re.compile(r"data/train-(\d{5})-of-(\d{5})\.parquet")


@dataclass(frozen=True, slots=True)
class Expected:
    """``chunks`` by session that must be committed, ``torn`` sessions that must fail, ``shards`` there are.

    ``reference`` holds by degree the sessions' rows of an undisturbed run.
    """

    chunks: Mapping[str, int]
    torn: frozenset[str]
    shards: int
    reference: Mapping[int, Mapping[str, Row]]


def problems(bucket: Bucket, expected: Expected) -> list[str]:
    """Everything that is wrong; an empty list is the promise kept."""
    sizes = bucket.sizes()
    rows = [row for key in sizes if key.startswith("data/") for row in read_rows(bucket.get(key))]
    return [
        *_shards(sizes, expected),
        *_sessions(rows, expected),
        *_records(bucket, sizes, rows, expected),
        *_failures(bucket, sizes, expected),
        *(problem for row in rows for problem in _artifacts(bucket, sizes, row)),
        *(problem for row in rows for problem in _content(row, expected)),
        *_orphans(bucket, sizes, rows, expected),
        *_counts(bucket, sizes, expected),
    ]


def read_rows(data: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


def published(bucket: Bucket) -> dict[str, Row]:
    """The rows of every shard by session."""
    keys = [key for key in bucket.sizes() if _SHARD.fullmatch(key)]
    return {row["session_id"]: row for key in keys for row in read_rows(bucket.get(key))}


def _shards(sizes: Mapping[str, int], expected: Expected) -> Iterator[str]:
    found = sorted(key for key in sizes if key.startswith("data/"))
    wanted = [f"data/train-{number:05d}-of-{expected.shards:05d}.parquet" for number in range(expected.shards)]
    if found != wanted:
        yield f"shards are {found}, not {wanted}"


def _sessions(rows: list[dict[str, Any]], expected: Expected) -> Iterator[str]:
    counts = Counter(row["session_id"] for row in rows)
    for name in expected.chunks.keys() - counts.keys():
        yield f"session {name} is lost"
    for name, count in counts.items():
        if name not in expected.chunks:
            yield f"session {name} is published and should not be"
        if count > 1:
            yield f"session {name} is published {count} times"
    for row in rows:
        name, chunks = row["session_id"], row["chunks"]
        wanted = expected.chunks.get(name, len(chunks))
        if [chunk["index"] for chunk in chunks] != list(range(wanted)):
            yield f"session {name} has chunks {[chunk['index'] for chunk in chunks]}, not {wanted}"
        if {chunk["sp_degree"] for chunk in chunks} != {row["sp_degree"]}:
            yield f"session {name} was made at degrees {[chunk['sp_degree'] for chunk in chunks]}"


def _records(bucket: Bucket, sizes: Mapping[str, int], rows: list[dict[str, Any]], expected: Expected) -> Iterator[str]:
    wanted = {f"_commits/{name}.parquet" for name in (*expected.chunks, *expected.torn)}
    found = {key for key in sizes if key.startswith("_commits/")}
    if found != wanted:
        yield f"records: missing {sorted(wanted - found)}, too many {sorted(found - wanted)}"
    for name in expected.torn:
        if (key := f"_commits/{name}.parquet") in found and read_rows(bucket.get(key)):
            yield f"session {name} should have failed and has a record"
    for row in rows:
        if (key := f"_commits/{row['session_id']}.parquet") in found and read_rows(bucket.get(key)) != [row]:
            yield f"the record of {row['session_id']} is not what is published"


def _failures(bucket: Bucket, sizes: Mapping[str, int], expected: Expected) -> Iterator[str]:
    found = {key for key in sizes if key.startswith("_failures/")}
    wanted = {f"_failures/{name}.json" for name in expected.torn}
    if found != wanted:
        yield f"failures: missing {sorted(wanted - found)}, too many {sorted(found - wanted)}"
    if "errors.parquet" in sizes:
        named = sorted(row["session_id"] for row in read_rows(bucket.get("errors.parquet")))
        if named != sorted(expected.torn):
            yield f"errors.parquet names {named}, not {sorted(expected.torn)}"


def _artifacts(bucket: Bucket, sizes: Mapping[str, int], row: Row) -> Iterator[str]:
    """The video and the latents of a row: there, of the right size, and with the right bytes."""
    named = [(row["video_path"], row["video_sha256"], row["video_bytes"])]
    named += [(_latents_key(chunk), chunk["latents_sha256"], None) for chunk in row["chunks"]]
    for key, sha256, size in named:
        if key not in sizes:
            yield f"{key} of {row['session_id']} is missing"
        elif size not in (None, sizes[key]):
            yield f"{key} of {row['session_id']} has {sizes[key]} bytes, not {size}"
        elif hashlib.sha256(bucket.get(key)).hexdigest() != sha256:
            yield f"{key} of {row['session_id']} has another sha256 than its row says"


def _content(row: Row, expected: Expected) -> Iterator[str]:
    """The row against the undisturbed run's: latents and video bit for bit, and all the rest."""
    name, degree = row["session_id"], row["sp_degree"]
    reference = expected.reference.get(degree, {}).get(name)
    if reference is None:
        if name in expected.chunks:
            yield f"session {name} was made at degree {degree}, of which there is no reference"
        return
    for chunk, other in zip(row["chunks"], reference["chunks"], strict=False):
        for what in ("latents_sha256", "fragment_sha256"):
            if chunk[what] != other[what]:
                yield f"{what} of {name}, chunk {chunk['index']}, is not the undisturbed run's at degree {degree}"
    if row["video_sha256"] != reference["video_sha256"]:
        yield f"the video of {name} is not the undisturbed run's at degree {degree}"
    mine, theirs = _comparable(row), _comparable(reference)
    if differing := [column for column in theirs if mine.get(column) != theirs[column]]:
        yield f"the row of {name} differs from the undisturbed run's in {differing}"


def _orphans(bucket: Bucket, sizes: Mapping[str, int], rows: list[dict[str, Any]], expected: Expected) -> Iterator[str]:
    named = {row["video_path"] for row in rows} | {_latents_key(chunk) for row in rows for chunk in row["chunks"]}
    for key in sizes:
        known = key in named or key in _CLOSING or key.startswith(("data/", "_commits/", "_failures/"))
        if not known:
            yield f"{key} is an orphan"
    for key in _CLOSING:
        if key not in sizes:
            yield f"{key} is missing"
    for key in bucket.unfinished():
        yield f"an upload to {key} is unfinished"


def _counts(bucket: Bucket, sizes: Mapping[str, int], expected: Expected) -> Iterator[str]:
    if "run.json" not in sizes:
        return
    run = json.loads(bucket.get("run.json"))
    counts = run.get("counts", {})
    wanted = {"committed": len(expected.chunks), "failed": len(expected.torn), "remaining": 0}
    wanted["rows"] = wanted["committed"] + wanted["failed"]
    if run["status"] != "finished" or any(counts.get(name) != count for name, count in wanted.items()):
        yield f"run.json says {run['status']} with {counts}, not finished with {wanted}"


def _latents_key(chunk: Mapping[str, Any]) -> str:
    """By the last three names of its URI, wherever the output lies."""
    return "/".join(str(chunk["latents_uri"]).split("/")[-3:])


def _comparable(row: Row) -> dict[str, Any]:
    kept = {column: value for column, value in row.items() if column not in _PLACES}
    kept["chunks"] = [{name: chunk[name] for name in chunk if name not in _CHUNK_FACTS} for chunk in row["chunks"]]
    return kept

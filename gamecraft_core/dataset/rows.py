"""A session's row: built from its commit order, stored as a one-row Parquet file; or its tombstone, without a row.

Imports pyarrow: import it late.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.messages import ChunkRecord, CommitOrder, FloatArray
from gamecraft_core.base.spec import NoControl
from gamecraft_core.dataset.schema import SCHEMA_VERSION, SESSION_SCHEMA, TIMINGS
from gamecraft_core.timeline.camera import keys_and_mouse, session_camera
from gamecraft_core.timeline.spans import span

FAILURE_VERSION = 1
_FAILURE = b"framelane.failure"


def build_row(order: CommitOrder, *, video_key: str, video_uri: str, video_sha256: str, video_bytes: int) -> bytes:
    """The session's row as a Parquet file of one row."""
    spec = order.spec
    _check_chunks(order)
    poses, lenses = session_camera(spec.controls, spec.chunk_frames, spec.height, spec.width)
    keys, mouse = keys_and_mouse(spec.controls, spec.chunk_frames)
    filmed = 0 if all(isinstance(control, NoControl) for control in spec.controls) else spec.num_frames
    if not len(poses) == len(lenses) == len(keys) == len(mouse) == filmed:
        raise ValueError(f"{spec.session_id}: per-frame lists must have {filmed} entries")
    row: dict[str, Any] = {
        "session_id": spec.session_id,
        "prompt": spec.prompt,
        "num_frames": spec.num_frames,
        "fps": spec.fps,
        # An absolute path for a folder: Hugging Face's opener folds the slashes of file:///.
        "video": {"bytes": None, "path": video_uri.removeprefix("file://")},
        "video_path": video_key,
        "video_sha256": video_sha256,
        "video_bytes": video_bytes,
        "height": spec.height,
        "width": spec.width,
        "keys": keys,
        "chunks": [_chunk(record) for record in order.chunks],
        "row": spec.row,
        "tenant": spec.tenant,
        "start_kind": spec.start.kind,
        "start_uri": spec.start.uri,
        "negative_prompt": spec.negative_prompt,
        "seed": spec.seed,
        **asdict(order.provenance),
    }
    frames = {"mouse": mouse, "camera_to_world": poses.reshape(-1, 12), "intrinsics": lenses}
    columns = [
        _per_frame(frames[field.name]) if field.name in frames else pa.array([row[field.name]], field.type)
        for field in SESSION_SCHEMA
    ]
    return table_bytes(pa.Table.from_arrays(columns, schema=SESSION_SCHEMA))


def table_bytes(table: pa.Table) -> bytes:
    """``table`` as a Parquet file. An empty one gets no row group: Hugging Face fails on a group without rows."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        if table.num_rows:
            writer.write_table(table)
    return bytes(sink.getvalue())


def read_table(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table in a Parquet file of ours. Raises UsageError where a newer release wrote it."""
    table = pq.ParquetFile(pa.BufferReader(data)).read(columns=columns)
    conventions = (table.schema.metadata or {}).get(b"framelane")
    version = json.loads(conventions).get("schema_version") if conventions else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"a record has schema version {version!r}, and this program reads {SCHEMA_VERSION}",
            field="out",
            remedy="continue with the release that wrote it",
        )
    return table


def build_tombstone(failure: Mapping[str, Any]) -> bytes:
    """The record of a session that failed: a Parquet file without a row, ``failure`` in its schema's metadata."""
    metadata = {**(SESSION_SCHEMA.metadata or {}), _FAILURE: encode_failure(failure)}
    return table_bytes(SESSION_SCHEMA.with_metadata(metadata).empty_table())


def read_failure(data: bytes) -> dict[str, Any] | None:
    """The failure that a tombstone holds; None for the record of a committed session."""
    metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    return decode_failure(metadata[_FAILURE]) if _FAILURE in metadata else None


def encode_failure(failure: Mapping[str, Any]) -> bytes:
    """A failure as it is stored, JSON with a version."""
    return json.dumps({"version": FAILURE_VERSION, **failure}, ensure_ascii=False).encode()


def decode_failure(data: bytes) -> dict[str, Any]:
    """The inverse of ``encode_failure``."""
    failure: dict[str, Any] = json.loads(data)
    if (version := failure.pop("version", None)) != FAILURE_VERSION:
        raise UsageError(
            f"the failure of {failure.get('session_id')!r} is stored in version {version!r}, not {FAILURE_VERSION}",
            field="out",
            remedy="continue the run with the release that began it",
        )
    return failure


def _check_chunks(order: CommitOrder) -> None:
    spec, chunks = order.spec, order.spec.num_chunks
    spans = [(record.index, record.start, record.end) for record in order.chunks]
    if spans != [(index, *span(spec.layout, spec.chunk_frames, chunks, index)) for index in range(chunks)]:
        raise ValueError(f"{order.session_id}: chunks {spans} do not make {spec.num_frames} frames")


def _chunk(record: ChunkRecord) -> dict[str, Any]:
    unknown = set(record.timings) - {field.name for field in TIMINGS}
    if unknown:
        raise ValueError(f"unknown timings {sorted(unknown)}")
    values = asdict(record)
    del values["staged_key"]
    return values


def _per_frame(values: FloatArray) -> pa.Array:
    """One list element of fixed-size lists, [frames, k], without a Python object per number."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    fixed = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), fixed)

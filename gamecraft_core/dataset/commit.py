"""Settling a session, exactly once: join its chunks and commit them, or record that it failed, by one conditional put.

Invariants: bytes are stored before the record that names them; the record at ``_commits/<session>.parquet``, a row or a
tombstone, is put by exactly one writer, and whoever comes second adopts it; staged chunks go only after it exists. A
crash at any point leaves either no record (do it again) or a settled session. Imports pyarrow: import it late.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from gamecraft_core.base.errors import StateLost, StoreUnavailable
from gamecraft_core.base.messages import ChunkRecord, CommitOrder, FailOrder, FloatArray
from gamecraft_core.base.points import reached
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.chunk_state import DamagedState, unpack
from gamecraft_core.dataset.rows import build_row, build_tombstone, encode_failure, read_failure, read_table
from gamecraft_core.media.fragment import join


class Artifact(NamedTuple):
    """An immutable stored object."""

    key: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The session's record. ``committed``: this call put it; False: somebody had settled the session, and it is theirs.

    ``failure`` is there where they had settled it as failed.
    """

    row: bytes
    committed: bool
    video_key: str
    video_sha256: str
    video_bytes: int
    failure: dict[str, Any] | None = None


def latents_bytes(latents: FloatArray) -> bytes:
    """The bytes that are stored and hashed: float32, little-endian, C order."""
    return np.ascontiguousarray(latents, dtype="<f4").tobytes()


def put_latents(store: Store, session_id: str, index: int, latents: FloatArray) -> Artifact:
    """Keep one chunk's new latents."""
    data = latents_bytes(latents)
    sha256 = hashlib.sha256(data).hexdigest()
    key = layout.latents_key(session_id, index, sha256)
    store.put(key, data)
    return Artifact(key, sha256, len(data))


def commit_session(store: Store, order: CommitOrder, fragments: Sequence[bytes | None] = ()) -> CommitResult:
    """Join the chunks, store the video and settle the session by its record; a fragment that is not given is read.

    Raises StateLost when a staged chunk is missing or is not what its record says.
    """
    reached("commit.begun")
    result = _commit(store, order, layout.commit_key(order.session_id), fragments or [None] * len(order.chunks))
    reached("commit.record_put")
    for chunk in order.chunks:
        if chunk.staged_key:
            store.delete(chunk.staged_key)
    reached("commit.staged_removed")
    return result


def fail_session(store: Store, order: FailOrder) -> dict[str, Any] | None:
    """Settle the session as failed; the failure that stands, or None where somebody else has committed it.

    The index entry comes first: one without a tombstone means nothing, and another start may take it away, so it is put
    again once the tombstone stands.
    """
    failure = order.failure()
    index, key = layout.failure_key(order.session_id), layout.commit_key(order.session_id)
    store.put(index, encode_failure(failure))
    reached("fail.index_put")
    standing = failure if store.put_if_absent(key, build_tombstone(failure)) else read_failure(store.get(key))
    reached("fail.tombstone_put")
    if standing is None:
        store.delete(index)
        _remove(store, layout.staging_folder(order.session_id))
        return None
    store.put(index, encode_failure(standing))
    for folder in (layout.staging_folder(order.session_id), layout.latents_folder(order.session_id)):
        _remove(store, folder)
    return standing


def sweep(store: Store) -> None:
    """Remove what lost lanes left staged. Only when no session is under way."""
    _remove(store, layout.STAGING)


def _remove(store: Store, folder: str) -> None:
    for key in list(store.list(folder)):
        store.delete(key)


def _commit(store: Store, order: CommitOrder, key: str, given: Sequence[bytes | None]) -> CommitResult:
    started = time.monotonic()
    try:
        pairs = [_fragment(store, chunk, data) for chunk, data in zip(order.chunks, given, strict=True)]
    except StateLost:
        if theirs := _settled(store, key):  # and its staged chunks were removed while we read them
            return theirs
        raise
    in_time = sorted(pairs, key=lambda pair: pair[0].start)
    video = join([fragment for chunk, fragment in in_time if chunk.end > chunk.start])
    sha256 = hashlib.sha256(video).hexdigest()
    video_key = layout.video_key(sha256)
    adopted = not store.put_if_absent(video_key, video)
    reached("commit.video_put")
    order = _written(order, tuple(chunk for chunk, _ in pairs), time.monotonic() - started)
    row = build_row(
        order, video_key=video_key, video_uri=store.uri(video_key), video_sha256=sha256, video_bytes=len(video)
    )
    if store.put_if_absent(key, row):
        if adopted:  # an orphan that nobody named may have been removed before our record named it
            store.put_if_absent(video_key, video)
        return CommitResult(row, True, video_key, sha256, len(video))
    theirs = _settled(store, key)
    if theirs is None:
        raise StoreUnavailable(f"{store.uri(key)} was there and is gone", remedy="leave the output to its run")
    return theirs


def _settled(store: Store, key: str) -> CommitResult | None:
    """How somebody else settled the session."""
    try:
        row = store.get(key)
    except FileNotFoundError:
        return None
    if (failure := read_failure(row)) is not None:
        return CommitResult(row, False, "", "", 0, failure)
    facts = read_table(row, ["video_path", "video_sha256", "video_bytes"]).to_pylist()[0]
    return CommitResult(row, False, facts["video_path"], facts["video_sha256"], facts["video_bytes"])


def _written(order: CommitOrder, chunks: tuple[ChunkRecord, ...], seconds: float) -> CommitOrder:
    """The order with its finished records: a last chunk that was not staged took ``seconds`` to write, as the video."""
    last = chunks[-1]
    if not last.staged_key:
        last = replace(last, timings={**last.timings, "write": seconds})
    return replace(order, chunks=(*chunks[:-1], last))


def _fragment(store: Store, chunk: ChunkRecord, data: bytes | None) -> tuple[ChunkRecord, bytes]:
    """The chunk's fragment, and its record with the digest of it."""
    try:
        data = unpack(store.get(chunk.staged_key), chunk.staged_key).fragment if data is None else data
    except (FileNotFoundError, DamagedState):
        data = b""
    sha256 = hashlib.sha256(data).hexdigest()
    if chunk.fragment_sha256 not in ("", sha256):
        raise StateLost(
            f"chunk {chunk.index} at {chunk.staged_key} is missing or is not what its record says",
            remedy="run the session again",
        )
    return replace(chunk, fragment_sha256=sha256), data

"""Making a session visible, exactly once: stage its chunks, join them, one conditional put.

Invariants: bytes are stored before the record that names them; the record at ``_commits/<session>.parquet`` is put by
exactly one writer, and whoever comes second adopts it; staged chunks go only after a record exists. A crash at any
point leaves either no record (do it again) or a whole session. Imports pyarrow: import it late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.messages import ChunkRecord, CommitOrder, FloatArray, Fragment
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.rows import build_row, read_table
from gamecraft_core.media.fragment import join


class Artifact(NamedTuple):
    """An immutable stored object."""

    key: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The session's record. ``committed``: this call made it visible; False: somebody had, and this is theirs."""

    row: bytes
    committed: bool
    video_key: str
    video_sha256: str
    video_bytes: int


def stage_fragment(store: Store, session_id: str, index: int, fragment: Fragment) -> Artifact:
    """Make one chunk's fragment durable, unseen by readers until the commit."""
    sha256 = hashlib.sha256(fragment.data).hexdigest()
    key = layout.fragment_key(session_id, index, sha256)
    store.put(key, fragment.data)
    return Artifact(key, sha256, len(fragment.data))


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
    """Join the chunks, store the video and commit the session's record; ``fragments`` spare reading staged ones.

    Raises Poisoned when a staged chunk is missing or is not what its record says.
    """
    result = _commit(store, order, layout.commit_key(order.session_id), fragments or [None] * len(order.chunks))
    for chunk in order.chunks:
        store.delete(chunk.fragment_key)
    return result


def sweep(store: Store) -> None:
    """Remove what lost lanes left staged. Only when no session is under way."""
    for staged in list(store.list(layout.STAGING)):
        store.delete(staged)


def _commit(store: Store, order: CommitOrder, key: str, given: Sequence[bytes | None]) -> CommitResult:
    try:
        video = join([_fragment(store, chunk, data) for chunk, data in zip(order.chunks, given, strict=True)])
    except Poisoned:
        if theirs := _committed(store, key):  # and its staged chunks were removed while we read them
            return theirs
        raise
    sha256 = hashlib.sha256(video).hexdigest()
    video_key = layout.video_key(sha256)
    store.put_if_absent(video_key, video)
    row = build_row(
        order, video_key=video_key, video_uri=store.uri(video_key), video_sha256=sha256, video_bytes=len(video)
    )
    ours = CommitResult(row, store.put_if_absent(key, row), video_key, sha256, len(video))
    return ours if ours.committed else _committed(store, key) or ours


def _committed(store: Store, key: str) -> CommitResult | None:
    try:
        row = store.get(key)
    except FileNotFoundError:
        return None
    facts = read_table(row, ["video_path", "video_sha256", "video_bytes"]).to_pylist()[0]
    return CommitResult(row, False, facts["video_path"], facts["video_sha256"], facts["video_bytes"])


def _fragment(store: Store, chunk: ChunkRecord, data: bytes | None) -> bytes:
    try:
        data = store.get(chunk.fragment_key) if data is None else data
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != chunk.fragment_sha256:
        raise Poisoned(
            f"chunk {chunk.index} at {chunk.fragment_key} is missing or is not what its record says",
            remedy="run the session again",
        )
    return data

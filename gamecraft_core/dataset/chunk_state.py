"""A staged chunk: all that its session needs to go on from there, in one object that is stored in one step.

It is a safetensors file: the chunk's video fragment, its new latents (the history of the next chunk), and in the
metadata the chunk's record, the session's identity and the digest of the latents that it continued from. So staged
chunks form chains, and a chain is only followed as far as every link fits. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.messages import ChunkRecord, FloatArray, WriteOrder
from gamecraft_core.base.points import reached
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout

VERSION = 1
_METADATA = "framelane"


class DamagedState(ValueError):
    """The bytes are not a staged chunk, or are not what their own record says."""


@dataclass(frozen=True, slots=True)
class ChunkState:
    """A staged chunk, opened. ``identity`` and ``history_sha256`` are those of its WriteOrder."""

    identity: str
    history_sha256: str
    record: ChunkRecord
    fragment: bytes
    latents: FloatArray


@dataclass(frozen=True, slots=True)
class Restored:
    """The valid beginning of a session: its chunks, their fragments, and the latents to go on from (None: no chunk)."""

    chunks: tuple[ChunkRecord, ...]
    fragments: tuple[bytes, ...]
    latents: FloatArray | None


def pack(order: WriteOrder, fragment: bytes, latents: FloatArray) -> tuple[ChunkRecord, bytes]:
    """The chunk's finished record and the object to store."""
    from safetensors.numpy import save

    values = np.ascontiguousarray(latents, dtype="<f4")
    sha256 = hashlib.sha256(fragment).hexdigest()
    told_by = sha256 if fragment else order.record.latents_sha256  # all empty fragments are alike
    key = layout.chunk_key(order.session_id, order.index, order.record.sp_degree, told_by)
    record = ChunkRecord(**{**_fields(order.record), "staged_key": key, "fragment_sha256": sha256})
    header = {
        "version": VERSION,
        "identity": order.identity,
        "history_sha256": order.history_sha256,
        "record": asdict(record),
    }
    tensors = {"fragment": np.frombuffer(fragment, np.uint8), "latents": values}
    return record, save(tensors, metadata={_METADATA: json.dumps(header)})


def unpack(data: bytes, name: str) -> ChunkState:
    """The inverse of ``pack``. Raises DamagedState, or UsageError where a newer release wrote it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_METADATA])
        version = header["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedState(f"{name}: {error!r}") from error
    if version != VERSION:
        raise UsageError(
            f"{name} has version {version!r}, and this program reads {VERSION}",
            field="out",
            remedy="continue the run with the release that began it, or delete the object: its session starts again",
        )
    try:
        tensors = load(data)
        record = ChunkRecord(**header["record"])
        state = ChunkState(
            header["identity"],
            header["history_sha256"],
            record,
            tensors["fragment"].tobytes(),
            tensors["latents"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedState(f"{name}: {error!r}") from error
    latents_sha256 = hashlib.sha256(state.latents.astype("<f4").tobytes()).hexdigest()
    if (hashlib.sha256(state.fragment).hexdigest(), latents_sha256) != (record.fragment_sha256, record.latents_sha256):
        raise DamagedState(f"{name}: its bytes are not what its record says")
    return state


def stage(store: Store, order: WriteOrder, fragment: bytes, latents: FloatArray) -> tuple[ChunkRecord, int]:
    """Make a chunk durable, unseen by readers until its session's commit; its record, and the bytes stored."""
    reached("stage.begun")
    record, data = pack(order, fragment, latents)
    store.put(record.staged_key, data)
    reached("stage.done")
    return record, len(data)


def restore(store: Store, keys: Iterable[str], identity: str) -> Restored:
    """The longest chain from chunk 0 among the staged ``keys`` of one session with this ``identity``."""
    reached("restore.begun")
    candidates: defaultdict[int, list[str]] = defaultdict(list)
    for key in keys:
        if (named := layout.parse_chunk_key(key)) is not None:
            candidates[named.chunk].append(key)
    chain: list[ChunkState] = []
    while (link := _link(store, candidates[len(chain)], identity, _tip(chain))) is not None:
        chain.append(link)
    return Restored(
        tuple(state.record for state in chain),
        tuple(state.fragment for state in chain),
        chain[-1].latents if chain else None,
    )


def resumable(keys: Sequence[str], degrees: Collection[int] | None) -> tuple[str, ...]:
    """Of one session's staged keys those of the longest run of chunks that groups of ``degrees`` can continue.

    A session keeps its sequence-parallel degree, or its bits would change; with ``degrees`` None it may change it.
    """
    named = [(key, name) for key in keys if (name := layout.parse_chunk_key(key)) is not None]
    if degrees is None:
        return tuple(key for key, _ in named)
    by_degree: dict[int, tuple[str, ...]] = {
        degree: tuple(key for key, name in named if name.sp_degree == degree) for degree in degrees
    }
    return max(by_degree.values(), key=lambda own: (reach(own), own), default=())


def reach(keys: Iterable[str]) -> int:
    """How many chunks from the first are there."""
    there = {name.chunk for key in keys if (name := layout.parse_chunk_key(key)) is not None}
    return next(count for count in range(len(there) + 1) if count not in there)


def _tip(chain: Sequence[ChunkState]) -> str:
    return chain[-1].record.latents_sha256 if chain else ""


def _link(store: Store, keys: Iterable[str], identity: str, history_sha256: str) -> ChunkState | None:
    for key in keys:
        try:
            state = unpack(store.get(key), key)
        except (FileNotFoundError, DamagedState):
            continue
        if (state.identity, state.history_sha256) == (identity, history_sha256):
            return state
    return None


def _fields(record: ChunkRecord) -> dict[str, Any]:
    """Its fields as they are, timings and control not copied."""
    return {name: getattr(record, name) for name in ChunkRecord.__dataclass_fields__}

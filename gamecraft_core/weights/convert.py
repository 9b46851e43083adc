"""A checkpoint of any layout becomes safetensors shards with an index, streamed tensor by tensor.

Invariants: memory holds one tensor at a time, and not even that where the source is mapped and nothing is cast; a shard
appears under its name with all its bytes or not at all; ``convert.json``, replaced after each shard, says what is done
and how to recognise it, so the same command resumes after any crash; the index comes last. The result depends on the
source and the settings only.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gamecraft_core.base.errors import UsageError, WeightsError
from gamecraft_core.base.ids import digest
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.weights.files import DTYPES, UNFINISHED, open_safetensors
from gamecraft_core.weights.places import Place, shard_place
from gamecraft_core.weights.source import Entry, Source

log = logging.getLogger("framelane.convert")

INDEX = "model.safetensors.index.json"

_PIECE = 16 << 20
_HEADER = 128
_HEADER_PER_KEY = 160
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

#: Told the bytes that were just written, or found to be there already.
Note = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file to be: its name and the keys in it, in their order."""

    name: str
    keys: tuple[str, ...]


def convert(
    source: Source,
    settings: Mapping[str, Any],
    out: str,
    max_shard_bytes: int,
    options: Mapping[str, Any] | None = None,
    note: Note = lambda size: None,
) -> str:
    """Write ``source`` below ``out`` (a folder or S3 URI) and return its fingerprint.

    ``settings`` is what was asked for beside the source; another source or other settings in ``out`` are refused.
    """
    store = open_store(out, options)
    shards = plan(source, max_shard_bytes)
    asked = {"source": _identity(source), "max_shard_bytes": max_shard_bytes, **settings}
    done = _resumed(store, asked)
    with shard_place(store) as place:
        left = [shard for shard in shards if not _is_done(shard, source, place, done.get(shard.name), note)]
        place.require_room([sum(source.entries[key].nbytes for key in shard.keys) for shard in left])
        _record(store, asked, done)  # before the first shard, so that a later start knows whose that is
        for shard in left:
            done[shard.name] = _made(shard, source, place, note)
            _record(store, asked, done)
            log.info("%s: %d of %d shards", shard.name, len(done), len(shards))
    sums = {key: value for shard in shards for key, value in done[shard.name]["sha256"].items()}
    fingerprint = digest([[key, *_described(source.entries[key]), sums[key]] for key in sorted(sums)], 32)
    weight_map = {key: shard.name for shard in shards for key in shard.keys}
    total = sum(entry.nbytes for entry in source.entries.values())
    metadata = {"total_size": total, "fingerprint": fingerprint}
    store.put(INDEX, _json({"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}))
    return fingerprint


def _made(shard: Shard, source: Source, place: Place, note: Note) -> dict[str, Any]:
    """Write and publish one shard; returns what will recognise it."""
    path = place.room(shard.name)
    try:
        sums = write_shard(path, source, shard.keys, note)
        size = path.stat().st_size
        return {"bytes": size, "version": place.publish(path, shard.name), "sha256": sums}
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", field="DST", remedy="mend that and run the same command again"
        ) from error


def plan(source: Source, max_shard_bytes: int) -> list[Shard]:
    """The source's keys dealt to shards of at most ``max_shard_bytes``, header included, in their order."""
    groups: list[list[str]] = [[]]
    room = most = max_shard_bytes - _HEADER
    for key, entry in source.entries.items():
        if entry.dtype not in _NAMES:
            raise WeightsError(f"{entry.file}: {key} is {entry.dtype}, which safetensors cannot hold", field="SRC")
        cost = entry.nbytes + _HEADER_PER_KEY + len(key.encode())
        if cost > most:
            least = cost + _HEADER
            raise UsageError(f"{key} needs {least} bytes", field="--max-shard-bytes", remedy=f"give {least} or more")
        if cost > room:
            groups.append([])
            room = most
        groups[-1].append(key)
        room -= cost
    return [
        Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", _aligned(source, keys))
        for number, keys in enumerate(groups, 1)
    ]


def _aligned(source: Source, keys: list[str]) -> tuple[str, ...]:
    """``keys`` in their order, or wide types first where a tensor would not begin at a multiple of its width."""
    start = 0
    for key in keys:
        entry = source.entries[key]
        if start % entry.dtype.itemsize:
            return tuple(sorted(keys, key=lambda key: -source.entries[key].dtype.itemsize))
        start += entry.nbytes
    return tuple(keys)


def write_shard(path: Path, source: Source, keys: tuple[str, ...], note: Note = lambda size: None) -> dict[str, str]:
    """Stream ``keys`` of ``source`` into one safetensors file; returns the SHA-256 of each tensor's bytes."""
    sums = {}
    with path.open("wb") as file:
        file.write(_header(source, keys))
        for key in keys:
            sums[key] = _sum(source, key, file.write, note)
    return sums


def _header(source: Source, keys: tuple[str, ...]) -> bytes:
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for key in keys:
        entry = source.entries[key]
        dtype, shape = _described(entry)
        described[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + entry.nbytes]}
        start += entry.nbytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _described(entry: Entry) -> tuple[str, list[int]]:
    return _NAMES[entry.dtype], list(entry.shape)


def _sum(source: Source, key: str, write: Callable[[memoryview], object], note: Note) -> str:
    """The SHA-256 of a tensor's bytes, which go to ``write`` piece by piece."""
    hashed = hashlib.sha256()
    for piece in _pieces(source, key):
        write(piece)
        hashed.update(piece)
        note(len(piece))
    return hashed.hexdigest()


def _pieces(source: Source, key: str) -> Iterator[memoryview]:
    tensor, entry = source.read(key), source.entries[key]
    if tensor.dtype != entry.dtype or tuple(tensor.shape) != entry.shape:
        raise ValueError(f"{key} is not what its header says")
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]


def _identity(source: Source) -> list[list[Any]]:
    """Name, size and date of every file read: what tells two checkpoints of one shape apart."""
    files = sorted({entry.file for entry in source.entries.values()})
    return [[Path(file).name, (stat := Path(file).stat()).st_size, stat.st_mtime_ns] for file in files]


def _resumed(store: Store, asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The shards that an earlier start finished; a UsageError where something else is in the way."""
    try:
        state = json.loads(store.get(UNFINISHED))
        found, shards = state["asked"], dict(state["shards"])
    except FileNotFoundError:
        foreign = [key for key in store.list("") if key.endswith((".safetensors", ".pt", ".json"))]
        if foreign:
            raise UsageError(
                f"{store.root} holds {foreign[0]} already", field="DST", remedy="name an empty folder"
            ) from None
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{store.uri(UNFINISHED)} is damaged: {error}", field="DST", remedy="empty that folder"
        ) from error
    if found != asked:
        differing = ", ".join(sorted(key for key in asked | found if asked.get(key) != found.get(key)))
        raise UsageError(
            f"{store.root} holds a conversion with another {differing}", field="DST", remedy="name another folder"
        )
    return shards


def _record(store: Store, asked: dict[str, Any], done: dict[str, dict[str, Any]]) -> None:
    store.put(UNFINISHED, _json({"asked": asked, "shards": dict(sorted(done.items()))}))


def _is_done(shard: Shard, source: Source, place: Place, record: dict[str, Any] | None, note: Note) -> bool:
    """Whether the shard is in place with the bytes recorded; a local one is read again in full."""
    if record is None or set(record["sha256"]) != set(shard.keys):
        return False
    if not place.keeps(shard.name, record["bytes"], record["version"]):
        return False
    path = place.readable(shard.name)
    if path is not None:
        try:
            kept = open_safetensors(path, "DST")
            intact = all(_sum(kept, key, lambda piece: None, note) == record["sha256"][key] for key in shard.keys)
        except (WeightsError, KeyError):
            intact = False
        if not intact:
            log.warning("%s is not what it was: writing it again", path)
        return intact
    note(sum(source.entries[key].nbytes for key in shard.keys))
    return True


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"

"""Opening checkpoint files: zip-format ``.pt`` and safetensors, mapped into memory, never run as code.

What is wrong with a file is a WeightsError that names it.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.weights.source import Entry, Source

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

#: What a conversion keeps in its folder; without an index beside it the folder is not whole.
UNFINISHED = "convert.json"

_INDEX = "*.safetensors.index.json"
_ZIP = b"PK\x03\x04"
_LFS = b"version https://git-lfs"
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")


def open_pickle(file: Path, field: str) -> dict[str, Any]:
    """The dictionary in a ``.pt`` file; its tensors are views of the mapped file."""
    _check_start(file, field)
    try:
        states = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = _REFUSED_GLOBAL.search(str(error))
        raise WeightsError(
            f"{file} holds more than tensors{f' ({found[1]})' if found else ''}: reading it could run code",
            field=field,
            remedy="fetch the published file, or safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _unreadable(file, first_line, field) from error
    if not isinstance(states, dict):
        raise WeightsError(f"{file} holds a {type(states).__name__}, not a dictionary of tensors", field=field)
    return states


def of_tensors(file: Path, states: dict[str, Any], field: str) -> Source:
    """A source over a dictionary that must hold tensors only."""
    wrong = [key for key, value in states.items() if not isinstance(value, Tensor)]
    if wrong or not states:
        what = f"{wrong[0]!r} is not a tensor" if wrong else "it is empty"
        raise WeightsError(f"{file} is not a state dictionary: {what}", field=field, remedy="name another file")
    entries = {key: Entry(tuple(value.shape), value.dtype, str(file)) for key, value in states.items()}
    return Source(str(file), entries, lambda key: states[key])


def open_safetensors(place: Path, field: str) -> Source:
    """One safetensors file, or a folder of them, with or without an index."""
    index = {} if place.is_file() else _index(place, field)
    files = [place] if place.is_file() else sorted({place / name for name in index.values()} or _found(place))
    if not index and (place / UNFINISHED).is_file():
        raise WeightsError(f"{place} holds an unfinished conversion", field=field, remedy="run jobs.convert again")
    if not files:
        raise WeightsError(f"no checkpoint in {place}", field=field, remedy="expected .safetensors or .pt files there")
    handles: dict[str, Any] = {}
    entries: dict[str, Entry] = {}
    for file in files:
        handle = _open_shard(file, field)
        for key in handle.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
            if key in entries:
                raise WeightsError(f"{key} is in both {entries[key].file} and {file}", field=field, remedy="remove one")
            entries[key] = _entry(handle, key, file, field)
            handles[key] = handle
    absent = next((key for key in index if key not in entries), None)
    if absent is not None:
        raise WeightsError(f"{place / index[absent]} lacks {absent}, which the index places there", field=field)
    return Source(str(place), entries, lambda key: handles[key].get_tensor(key))


def has_safetensors(folder: Path) -> bool:
    """Whether ``folder`` holds weights at all."""
    return bool(_found(folder)) or any(folder.glob(_INDEX))


def shard_names(index: bytes, name: str, field: str) -> dict[str, str]:
    """Key -> file name, from the content of the safetensors index called ``name``."""
    try:
        named: dict[str, str] = json.loads(index)["weight_map"]
        if not all(isinstance(file, str) and "/" not in file for file in named.values()):
            raise ValueError("a file name in it is not a plain one")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{name} is not a safetensors index: {error}", field=field, remedy="fetch it again"
        ) from error
    return named


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _index(folder: Path, field: str) -> dict[str, str]:
    indexes = sorted(folder.glob(_INDEX))
    if not indexes:
        return {}
    named = shard_names(indexes[0].read_bytes(), str(indexes[0]), field)
    missing = sorted({name for name in named.values() if not (folder / name).is_file()})
    if missing:
        key = next(key for key, name in named.items() if name == missing[0])
        raise WeightsError(
            f"{folder} lacks {', '.join(missing)}, where {indexes[0].name} places {key}",
            field=field,
            remedy="fetch the missing files",
        )
    return named


def _open_shard(file: Path, field: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, str(error), field) from error


def _entry(handle: Any, key: str, file: Path, field: str) -> Entry:
    part = handle.get_slice(key)
    name = part.get_dtype()
    if name not in DTYPES:
        raise WeightsError(f"{file}: {key} has the unknown type {name}", field=field, remedy="convert the file")
    return Entry(tuple(part.get_shape()), DTYPES[name], str(file))


def _check_start(file: Path, field: str) -> None:
    """Refuse what torch would only report in riddles."""
    with file.open("rb") as stream:
        start = stream.read(len(_LFS))
    if start == _LFS:
        raise WeightsError(f"{file} is a git-lfs pointer, not the file", field=field, remedy="run git lfs pull")
    if not start:
        raise _unreadable(file, "it is empty", field)
    if not start.startswith(_ZIP):
        raise WeightsError(
            f"{file} is not in the zip format that torch has saved since 1.6, so it cannot be mapped and checked",
            field=field,
            remedy="fetch it again; an old file: save it anew with a current torch where you trust it",
        )


def _unreadable(file: Path, reason: str, field: str) -> WeightsError:
    return WeightsError(f"{file} is damaged or truncated: {reason}", field=field, remedy="fetch it again")

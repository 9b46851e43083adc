"""Readers of checkpoint files: the published layouts and safetensors of our own.

A reader opens, it does not load: shapes come from headers, data stays in the mapped file until ``read`` is called for
one tensor. Pickles are only opened with ``weights_only``. What is wrong with a file is a WeightsError that names it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gamecraft_core.base.errors import WeightsError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """One opened checkpoint: its name for messages, every key's shape, and a way to read one tensor."""

    name: str
    shapes: dict[str, Shape]
    read: Callable[[str], Tensor]

    def renamed(self, rename: Callable[[str], str | None]) -> Source:
        """The same checkpoint under other keys; those renamed to None are left out."""
        old = {new: key for key in self.shapes if (new := rename(key)) is not None}
        return Source(self.name, {new: self.shapes[key] for new, key in old.items()}, lambda new: self.read(old[new]))


def open_dit(path: str) -> Source:
    """A transformer: an official ``.pt`` (under ``module``, ``ema`` or nothing) or safetensors."""
    place = find_dit(path)
    if place.suffix != ".pt":
        return open_safetensors(place, "weights.dit")
    states = _open_pickle(place, "weights.dit")
    for selector in ("module", "ema"):
        if isinstance(states.get(selector), dict):
            states = states[selector]
            break
    return _of_tensors(place, states, "weights.dit")


def open_vae(path: str) -> Source:
    """A VAE: an official ``.pt`` (optional ``state_dict``; of keys that begin ``vae.`` only those) or safetensors."""
    place = find_vae(path)
    if place.suffix != ".pt":
        return open_safetensors(place, "weights.vae")
    states = _open_pickle(place, "weights.vae")
    states = states.get("state_dict", states)
    prefixed = {key.removeprefix("vae."): value for key, value in states.items() if key.startswith("vae.")}
    return _of_tensors(place, prefixed or states, "weights.vae")


def find_dit(path: str) -> Path:
    """The file ``path`` means: itself, or the ``*_model_states.pt`` of a folder; else the folder, for safetensors."""
    place = local(path, "weights.dit")
    found = sorted(place.glob("*_model_states.pt")) if place.is_dir() else []
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise WeightsError(f"{place} holds several: {names}", field="weights.dit", remedy="name one of the files")
    return found[0] if found else place


def find_vae(path: str) -> Path:
    """The file ``path`` means: itself, or the ``pytorch_model.pt`` of a folder; else the folder, for safetensors."""
    place = local(path, "weights.vae")
    file = place / "pytorch_model.pt"
    return file if file.is_file() else place


def open_safetensors(place: Path, field: str) -> Source:
    """One safetensors file, or a folder of them, with or without an index."""
    files = [place] if place.is_file() else _shards(place, field)
    if not files:
        raise WeightsError(f"no checkpoint in {place}", field=field, remedy="expected .safetensors or .pt files there")
    handles: dict[str, Any] = {}
    shapes: dict[str, Shape] = {}
    for file in files:
        handle = _open_shard(file, field)
        for key in handle.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
            shapes[key] = tuple(handle.get_slice(key).get_shape())
            handles[key] = handle
    return Source(str(place), shapes, lambda key: handles[key].get_tensor(key))


def has_safetensors(folder: Path) -> bool:
    """Whether ``folder`` holds weights at all."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json"))


def local(path: str, field: str) -> Path:
    """``path`` as an existing local file or folder."""
    if "://" in path and not path.startswith("file://"):
        raise WeightsError(f"cannot read {path}", field=field, remedy="copy the checkpoint to a local folder first")
    place = Path(path.removeprefix("file://")).expanduser()
    if not place.exists():
        raise WeightsError(f"there is nothing at {place}", field=field, remedy="correct the path or fetch the weights")
    return place


def _shards(folder: Path, field: str) -> list[Path]:
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not indexes:
        return sorted(folder.glob("*.safetensors"))
    try:
        named = sorted(set(json.loads(indexes[0].read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{indexes[0]} is not a safetensors index: {error}", field=field) from error
    missing = [name for name in named if not (folder / name).is_file()]
    if missing:
        raise WeightsError(
            f"{folder} lacks {', '.join(missing)}, named by {indexes[0].name}", field=field, remedy="fetch them again"
        )
    return [folder / name for name in named]


def _open_shard(file: Path, field: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} is damaged or truncated: {error}", field=field, remedy="fetch it again") from error


def _open_pickle(file: Path, field: str) -> dict[str, Any]:
    try:
        states = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{file} cannot be read: {first_line}", field=field, remedy="fetch it again") from error
    if not isinstance(states, dict):
        raise WeightsError(f"{file} holds a {type(states).__name__}, not a dictionary of tensors", field=field)
    return states


def _of_tensors(file: Path, states: dict[str, Any], field: str) -> Source:
    wrong = [key for key, value in states.items() if not isinstance(value, Tensor)]
    if wrong or not states:
        what = f"{wrong[0]!r} is not a tensor" if wrong else "it is empty"
        raise WeightsError(f"{file} is not a state dictionary: {what}", field=field)
    return Source(str(file), {key: tuple(value.shape) for key, value in states.items()}, lambda key: states[key])

"""Opened goldens: safetensors files whose headers hold JSON, and the folder of one family.

Invariant: a file knows which of its tensors were compared, so that those that nothing compared can be named.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

_STATE = "sd."


class Golden:
    """One file: header values, tensors, which of these were compared. Equal only to itself, so it can key a cache."""

    def __init__(self, path: Path) -> None:
        self.stem = path.stem
        with safe_open(path, "pt") as file:
            self.header: dict[str, Any] = {key: _value(value) for key, value in (file.metadata() or {}).items()}
            self._tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in sorted(file.keys())}
        self.compared: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in self._tensors if name.startswith(prefix)]

    def given(self, name: str) -> Tensor:
        """A tensor that a computation starts from."""
        return self._tensors[name]

    def expected(self, name: str) -> Tensor:
        """A tensor about to be compared, whole."""
        self.compared.add(name)
        return self._tensors[name]

    def shape(self, name: str) -> torch.Size:
        return self._tensors[name].shape

    def state_dict(self) -> dict[str, Tensor]:
        """The stored weights in float32, under the official names."""
        return {name.removeprefix(_STATE): self.given(name).float() for name in self.names(_STATE)}

    def uncompared(self) -> list[str]:
        return [name for name in self._tensors if name not in self.compared]


def _value(stored: str) -> Any:
    """A header's value: JSON, or plain words."""
    try:
        return json.loads(stored)
    except ValueError:
        return stored


class Folder:
    """One family's folder. Files are opened once; equal only to itself, so it can key a cache."""

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self.label = label
        self.opened: dict[str, Golden] = {}

    def golden(self, stem: str) -> Golden:
        if stem not in self.opened:
            self.opened[stem] = Golden(self.path / f"{stem}.safetensors")
        return self.opened[stem]

    def has(self, stem: str) -> bool:
        return (self.path / f"{stem}.safetensors").is_file()

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(encoding="utf-8"))

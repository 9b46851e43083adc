"""Writing golden files: for the committed subset and for tests that derive folders from one that is there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.parity.cases import manifest


@dataclass
class Draft:
    """A golden in memory, to be changed and written."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]

    @staticmethod
    def read(path: Path) -> Draft:
        with safe_open(path, "pt") as file:
            header = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            return Draft(header, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping

    def write(self, path: Path) -> None:
        metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in self.header.items()}
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, path, metadata)

    def drop(self, *prefixes: str) -> None:
        for name in [name for name in self.tensors if name.startswith(prefixes)]:
            del self.tensors[name]


def write_subset(
    source: Path,
    target: Path,
    copied: Sequence[str],
    dropped: Mapping[str, tuple[str, ...]],
    cut: Callable[[str, Draft], None],
) -> None:
    """Files of ``source`` to ``target``, replacing what is there: whole ones, and those that lose something.

    Of the files ``dropped`` everything goes that begins so, then ``cut`` is given the stem and what is left.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for stem, prefixes in dropped.items():
        draft = Draft.read(source / f"{stem}.safetensors")
        draft.drop(*prefixes)
        cut(stem, draft)
        draft.write(target / f"{stem}.safetensors")
    for name in copied:
        shutil.copyfile(source / name, target / name)


def write_manifest(folder: Path) -> None:
    """Size and SHA-256 of every file below ``folder`` but the manifest itself and prose."""
    entries = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name != manifest.NAME and path.suffix != ".md":
            data = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            entries[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / manifest.NAME).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")

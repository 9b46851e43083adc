"""One opened checkpoint: what its headers say of every tensor, and a way to read one.

Invariant: nothing is loaded before ``read``; what it gives is a view of a mapped file wherever the layout allows, so
that every process on a node shares one copy in the page cache and pays anonymous memory for its own model only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file's header says of one tensor."""

    shape: Shape
    dtype: torch.dtype
    file: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Source:
    """One checkpoint: its name for messages, its tensors by key, and a way to read one."""

    name: str
    entries: dict[str, Entry]
    read: Callable[[str], Tensor]

    def renamed(self, rename: Callable[[str], str | None]) -> Source:
        """The same checkpoint under other keys; those renamed to None are left out."""
        old = {new: key for key in self.entries if (new := rename(key)) is not None}
        return Source(self.name, {new: self.entries[key] for new, key in old.items()}, lambda new: self.read(old[new]))

    def cast(self, dtype: torch.dtype) -> Source:
        """The same checkpoint with every floating-point tensor in ``dtype``."""
        entries = {
            key: replace(entry, dtype=dtype) if entry.dtype.is_floating_point else entry
            for key, entry in self.entries.items()
        }
        return Source(self.name, entries, lambda key: self.read(key).to(entries[key].dtype))

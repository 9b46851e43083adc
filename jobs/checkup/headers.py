"""Checkpoints on S3 as far as their headers go: enough to check keys, shapes and types without fetching the tensors."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.store import open_store

_LENGTH_BYTES = 8
#: Above this a header is no header: safetensors' own bound.
_MOST_HEADER = 100_000_000


def mirrored(
    uri: str, options: dict[str, Any], pick: Callable[[Iterable[str]], list[str]], folder: Path
) -> Path | None:
    """Files of the size of those at ``uri`` with holes for tensors, at the path returned; None where some is a pickle.

    ``uri`` is a file or a folder, of which ``pick`` says what belongs to the checkpoint. UsageError where nothing does.
    """
    single = uri.endswith((".safetensors", ".pt"))
    parent, _, name = uri.rstrip("/").rpartition("/")
    place: Any = open_store(parent if single else uri, options)
    names = [name] if single else pick([key for key in place.list("") if "/" not in key])
    if not names:
        raise UsageError(f"there is nothing at {uri}", remedy="correct the URI, or upload the weights")
    if any(each.endswith((".pt", ".pth", ".bin")) for each in names):
        return None
    for each in names:
        facts = place.stat(each)
        if each.endswith(".safetensors") and facts.size > _LENGTH_BYTES:
            (length,) = struct.unpack("<Q", place.get_range(each, 0, _LENGTH_BYTES, facts.version))
            end = min(facts.size, _LENGTH_BYTES + min(length, _MOST_HEADER))
            content = place.get_range(each, 0, end, facts.version)
        else:
            content = place.get(each)
        with (folder / each).open("wb") as file:
            file.write(content)
            file.truncate(facts.size)
    return folder / name if single else folder

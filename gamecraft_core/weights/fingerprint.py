"""One short name for the numbers that a run computes with.

It covers the sizes of every model, the seed of random weights, and the content of every file read; never a path or
a date, so the same weights have the same fingerprint on every machine. A large file is hashed once and remembered by
(path, size, modification time) in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gamecraft_core.base.ids import digest
from gamecraft_core.base.preset import Preset
from gamecraft_core.weights.readers import (
    Pick,
    find_dit,
    find_vae,
    local,
    pick_dit,
    pick_language_model,
    pick_text,
    pick_vae,
)

_REMEMBERED_FROM_BYTES = 16 << 20
#: Of the text's settings, those that count by what they lead to, where they lead anywhere.
_ELSEWHERE = {"llm", "clip", "rewrite", "rewrite_request", "rewrite_tokens"}


def fingerprint(preset: Preset) -> str:
    """16 hex digits; WeightsError where a named file is absent."""
    weights = preset.weights
    value: dict[str, Any] = {
        "family": preset.family,
        "dit": preset.dit.model_dump(mode="json"),
        "vae": preset.vae.model_dump(mode="json"),
        "text": preset.text.model_dump(mode="json", exclude=_ELSEWHERE),
        "files": {
            "llm": _contents(local(preset.text.llm, "text.llm", pick_text), pick_text),
            "clip": _contents(local(preset.text.clip, "text.clip", pick_text), pick_text),
        },
    }
    if preset.text.rewrite:
        asked = (preset.text.rewrite_request, preset.text.rewrite_tokens)
        folder = local(preset.text.rewrite, "text.rewrite", pick_language_model)
        value["rewrite"] = [*asked, _contents(folder, pick_language_model)]
    if preset.vision is not None:
        path = preset.vision.path
        files = None if path is None else _contents(local(path, "vision.path", pick_text), pick_text)
        value["vision"] = [preset.vision.random, files, None if path else weights.seed]
    if weights.kind == "random":
        value["seed"] = weights.seed
    else:
        value["files"]["dit"] = _contents(find_dit(weights.dit or ""), pick_dit)
        value["files"]["vae"] = _contents(find_vae(weights.vae or ""), pick_vae)
    return digest(value)


def _contents(place: Path, pick: Pick) -> list[tuple[str, int, str]]:
    """(name, size, SHA-256) of a file, or of every file directly in a folder that its reader picks."""
    files = [place] if place.is_file() else [place / name for name in pick(file.name for file in place.iterdir())]
    return [(file.name, file.stat().st_size, _sha256(file)) for file in files]


def _sha256(file: Path) -> str:
    stat = file.stat()
    if stat.st_size < _REMEMBERED_FROM_BYTES:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    key = digest([str(file.resolve()), stat.st_size, stat.st_mtime_ns], 32)
    note = Path.home() / ".cache" / "framelane" / "sha256" / f"{key}.json"
    try:
        return str(json.loads(note.read_text())["sha256"])
    except (OSError, ValueError, KeyError):
        with file.open("rb") as stream:
            value = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"sha256": value}))
    except OSError:
        pass  # a read-only home only costs the next run another pass
    return value

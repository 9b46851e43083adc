"""Checkpoints on S3: the files that a reader will open, copied to this machine once and then mapped like any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gamecraft_core.base.errors import UsageError, WeightsError
from gamecraft_core.base.inputs import local_copy
from gamecraft_core.base.preset import Preset
from gamecraft_core.weights.readers import Pick, pick_dit, pick_language_model, pick_text, pick_vae

#: The places a preset names, and what is read of a folder there.
_PLACES: dict[str, Pick] = {
    "weights.dit": pick_dit,
    "weights.vae": pick_vae,
    "text.llm": pick_text,
    "text.clip": pick_text,
    "text.rewrite": pick_language_model,
    "vision.path": pick_text,
}


def localised(preset: Preset, options: Mapping[str, Any], *fields: str) -> Preset:
    """``preset`` with local paths for its S3 places (those called ``fields``; by default all that will be read)."""
    for field in fields or _PLACES:
        group, key = field.split(".")
        section = getattr(preset, group)
        uri = str(getattr(section, key, ""))
        read = group in ("text", "vision") or preset.weights.kind == "files"
        if read and uri.startswith("s3://"):
            path = str(fetched(uri, field, _PLACES[field], options))
            preset = preset.model_copy(update={group: section.model_copy(update={key: path})})
    return preset


def fetched(uri: str, field: str, pick: Pick, options: Mapping[str, Any] | None = None) -> Path:
    """A local path with the file, or with the picked files of the folder, at ``uri``. Folders are not entered."""
    try:
        return local_copy(uri, options, field=field, pick=lambda keys: pick(key for key in keys if "/" not in key))
    except UsageError as error:
        raise WeightsError(error.message, field=error.field or field, remedy=error.remedy) from error

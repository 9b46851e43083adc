"""Folders of the hub's layout, for models that transformers builds: a configuration, and safetensors of some naming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.preset import Preset
from gamecraft_core.weights.files import has_safetensors, open_safetensors
from gamecraft_core.weights.fill import fill
from gamecraft_core.weights.random_init import fill_random
from gamecraft_core.weights.source import Source


def fill_from_folder(
    preset: Preset,
    folder: Path,
    model: nn.Module,
    field: str,
    prefixes: tuple[str, ...],
    probe: str,
    keep: Callable[[str], bool],
) -> None:
    """Weights for ``model`` from ``folder``, whose keys begin with the prefix that ``probe`` is found under.

    In the type that texts are encoded in. With random weights in the preset, a folder without any gets seeded draws.
    """
    model.to(getattr(torch, preset.runtime.text_dtype))
    if preset.weights.kind == "random" and not has_safetensors(folder):
        fill_random(model, preset.weights.seed)
        return
    source = open_safetensors(folder, field)
    prefix = _prefix(source, prefixes, probe, field)

    def rename(key: str) -> str | None:
        name = key.removeprefix(prefix)
        return name if key.startswith(prefix) and keep(name) else None

    fill(model, source.renamed(rename), field)


def read_config(folder: Path, field: str, half: str = "text_config") -> dict[str, Any]:
    """One half of a two-sided model's ``config.json``, or all of it where there is no such half."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values: dict[str, Any] = config.get(half, config)
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{folder}/config.json cannot be read: {error}", field=field, remedy="fetch it") from error
    return values


def _prefix(source: Source, prefixes: tuple[str, ...], probe: str, field: str) -> str:
    for prefix in prefixes:
        if prefix + probe in source.entries:
            return prefix
    tried = ", ".join(prefix + probe for prefix in prefixes)
    raise WeightsError(f"{source.name} holds none of the keys {tried}", field=field, remedy="name another folder")

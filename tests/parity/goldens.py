"""Finds and opens goldens: next to the repository when they are there, else the subset committed here.

A golden is a safetensors file whose header holds JSON values; every check is driven by them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from gamecraft_core.base.preset import DitConfig, Preset
from gamecraft_core.families.gamecraft import GameCraft, build_model

_ROOT = Path(__file__).resolve().parents[2]
_PLACES = (_ROOT.parent / "shared" / "goldens" / "gamecraft", Path(__file__).resolve().parent / "gamecraft")
FOLDER = next((place for place in _PLACES if place.is_dir()), _PLACES[-1])


@dataclass(frozen=True)
class Golden:
    """One file: header values and tensors."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def state_dict(self) -> dict[str, Tensor]:
        return {name[3:]: value.float() for name, value in self.tensors.items() if name.startswith("sd.")}


def header(name: str) -> dict[str, Any]:
    """A golden's header; empty where the file is absent, so that tests can be parametrised before they skip."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}


@cache
def golden(name: str) -> Golden:
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"golden {path} is absent")
    with safe_open(path, "pt") as file:
        return Golden(header(name), {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def names(prefix: str) -> list[str]:
    """The goldens whose name begins so; the prefix itself where there is none, so that the skip has a name."""
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.safetensors")) or [prefix]


def cases(name: str) -> list[Any]:
    """The header's ``cases`` as pytest parameters; one nameless case where the file is absent."""
    return [pytest.param(case, id=case["name"]) for case in header(name).get("cases", [])] or [
        pytest.param(None, id="absent")
    ]


def preset(dit: dict[str, Any]) -> Preset:
    """A preset around a transformer configuration; what is not the transformer's is filled in and unused."""
    return Preset.model_validate(
        {
            "name": "golden",
            "family": "gamecraft",
            "dit": {key: value for key, value in dit.items() if key in DitConfig.model_fields},
            "vae": {"block_out_channels": [8, 8]},
            "text": {"llm": "unused", "clip": "unused"},
            "weights": {"kind": "random"},
            "sampling": {"steps": 8, "guidance": 1.0, "shift": 5.0},
            "video": {"height": 32, "width": 48},
            "runtime": {"dtype": "float32"},
        }
    )


def load_model(settings: Preset, state: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> GameCraft:
    model = build_model(settings, "cpu", dtype)
    model.load_state_dict(state, strict=True)
    return model


def tiny_weights(name: str) -> tuple[Preset, GameCraft]:
    """The model stored in the official on-disk layout under ``name``, by its configuration beside it."""
    described = json.loads((FOLDER / f"{name}.json").read_text())
    path = FOLDER / name / described["paths"]["dit"]
    state = torch.load(path, weights_only=True, mmap=True, map_location="cpu")["module"]
    settings = preset(described["dit"])
    return settings, load_model(settings, state)


def assert_close(actual: Tensor, expected: Tensor, atol: float, what: str = "") -> None:
    torch.testing.assert_close(actual.float(), expected.float(), atol=atol, rtol=0, msg=lambda text: f"{what}: {text}")

"""Models for goldens: from state dicts stored in a golden, and from ``tiny_weights`` by the product's own readers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gamecraft_core.base.preset import DitConfig, Preset, VaeConfig
from gamecraft_core.families.gamecraft import GameCraft, build_model
from gamecraft_core.text.encoders import TextEncoder
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.loader import load_dit, load_vae
from tests.parity.golden import Folder

_ANY_DIT = {
    "hidden_size": 8,
    "num_heads": 1,
    "depth_double_blocks": 1,
    "depth_single_blocks": 1,
    "rope_dim_list": (4, 2, 2),
    "text_states_dim": 8,
    "text_states_dim_2": 8,
}


def preset(**parts: dict[str, Any]) -> Preset:
    """A float32 preset of these parts; what a golden says nothing about is filled in and unused."""
    values: dict[str, Any] = {
        "name": "golden",
        "family": "gamecraft",
        "dit": _ANY_DIT,
        "vae": {"block_out_channels": [8, 8]},
        "text": {"llm": "unused", "clip": "unused"},
        "weights": {"kind": "random"},
        "sampling": {"steps": 8, "guidance": 1.0, "shift": 5.0},
        "video": {"height": 32, "width": 48},
        "runtime": {"dtype": "float32", "vae_dtype": "float32", "text_dtype": "float32", "attention": "sdpa"},
    }
    return Preset.model_validate(values | parts)


def dit_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a published configuration that size the transformer."""
    return {key: value for key, value in config.items() if key in DitConfig.model_fields}


def vae_config(config: dict[str, Any]) -> VaeConfig:
    return VaeConfig.model_validate({key: value for key, value in config.items() if key in VaeConfig.model_fields})


def filled_dit(settings: Preset, state: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> GameCraft:
    model = build_model(settings, "cpu", dtype)
    model.load_state_dict(state, strict=True)
    return model


class TinyWeights:
    """The official on-disk layout under one name, and its description beside it."""

    def __init__(self, folder: Folder, name: str) -> None:
        described = folder.json(f"{name}.json")
        self.paths: dict[str, Path] = {key: folder.path / name / part for key, part in described["paths"].items()}
        self._dit = dit_fields(described["dit"])

    @property
    def preset(self) -> Preset:
        vae = json.loads((self.paths["vae"] / "config.json").read_text(encoding="utf-8"))
        weights = {"kind": "files", "dit": str(self.paths["dit"]), "vae": str(self.paths["vae"])}
        return preset(dit=self._dit, vae=vae_config(vae).model_dump(), weights=weights)


@cache
def tiny_weights(folder: Folder, name: str) -> TinyWeights:
    return TinyWeights(folder, name)


@cache
def tiny_dit(folder: Folder, name: str) -> tuple[Preset, GameCraft]:
    settings = tiny_weights(folder, name).preset
    model = build_model(settings, "meta", torch.float32)
    load_dit(settings, model)
    return settings, model


@cache
def tiny_codec(folder: Folder, name: str) -> VaeCodec:
    settings = tiny_weights(folder, name).preset
    with torch.device("meta"):
        vae = CausalVae(settings.vae)
    load_vae(settings, vae)
    return VaeCodec(settings, vae, "cpu")


@cache
def text_encoder(llm: Path, clip: Path, sizes: tuple[tuple[str, int], ...] = ()) -> TextEncoder:
    """The encoder over two folders; ``sizes`` are the fields of the preset's text part that differ from the default."""
    return TextEncoder(preset(text={"llm": str(llm), "clip": str(clip), **dict(sizes)}), "cpu")

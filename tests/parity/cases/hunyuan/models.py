"""The models of a HunyuanVideo folder: sizes from its ``config.json``, weights by the product's own readers."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gamecraft_core.base.preset import Preset
from gamecraft_core.families.hunyuan_video import HunyuanVideoDenoiser, build_model
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.text.encoders import TextModels
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.loader import load_dit, load_vae
from tests.parity.golden import Folder
from tests.parity.models import dit_fields, preset, vae_config

DIT, VAE, LLM, CLIP = (f"{part}_tiny_weights" for part in ("dit", "vae", "llm", "clip"))

_DIT_FIELDS = {
    "heads_num": "num_heads",
    "mm_double_blocks_depth": "depth_double_blocks",
    "mm_single_blocks_depth": "depth_single_blocks",
}
_LLM_FIELDS = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "inter": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv": "num_key_value_heads",
}
_CLIP_FIELDS = _LLM_FIELDS | {"bos_id": "bos_token_id", "eos_id": "eos_token_id", "pad_id": "pad_token_id"}


@cache
def config(folder: Folder) -> dict[str, Any]:
    content: dict[str, Any] = folder.json("config.json")
    return content


def dit_sizes(folder: Folder) -> dict[str, Any]:
    return named_sizes(config(folder))


def named_sizes(described: dict[str, Any]) -> dict[str, Any]:
    """The transformer's sizes under the names of a preset."""
    return dit_fields(_renamed(described["dit"], _DIT_FIELDS))


@cache
def settings(folder: Folder) -> Preset:
    """A preset whose weights are the folder's."""
    parts: dict[str, dict[str, Any]] = {
        "weights": {"kind": "files", **{part: _file(folder, stem) for part, stem in (("dit", DIT), ("vae", VAE))}},
        "dit": dit_sizes(folder),
        "vae": vae_config(config(folder)["vae"]).model_dump(),
    }
    return preset(**parts).model_copy(update={"family": "hunyuan_video"})


@cache
def denoiser(folder: Folder) -> HunyuanVideoDenoiser:
    chosen = settings(folder)
    model = build_model(chosen, "meta", torch.float32)
    load_dit(chosen, model)
    return HunyuanVideoDenoiser(chosen, model, Solo())


@cache
def vae(folder: Folder, tiling: bool = True) -> CausalVae:
    chosen = settings(folder)
    with torch.device("meta"):
        model = CausalVae(chosen.vae.model_copy(update={"tiling": tiling}))
    load_vae(chosen, model)
    return model


@cache
def codec(folder: Folder, tiling: bool) -> VaeCodec:
    return VaeCodec(settings(folder), vae(folder, tiling), "cpu")


@cache
def text_models(folder: Folder) -> TextModels:
    """Both encoders, from folders laid out as the hub's: a configuration and weights."""
    with tempfile.TemporaryDirectory() as scratch:
        places = text_folders(config(folder), Path(scratch))
        for part, stem in (("llm", LLM), ("clip", CLIP)):
            shutil.copyfile(folder.path / f"{stem}.safetensors", places[part] / "model.safetensors")
        return TextModels(text_preset(config(folder), places), "cpu")


def text_folders(described: dict[str, Any], scratch: Path) -> dict[str, Path]:
    """Folders of the two encoders, without weights."""
    places = {part: scratch / part for part in ("llm", "clip")}
    for part, fields in (("llm", _LLM_FIELDS), ("clip", _CLIP_FIELDS)):
        places[part].mkdir()
        values = json.dumps(_renamed(described[part], fields))
        (places[part] / "config.json").write_text(values, encoding="utf-8")
    return places


def text_preset(described: dict[str, Any], places: dict[str, Path]) -> Preset:
    paths = {part: str(place) for part, place in places.items()}
    return preset(text={**paths, "skip_layers": described["text"]["hidden_state_skip_layer"]})


def _file(folder: Folder, stem: str) -> str:
    return str(folder.path / f"{stem}.safetensors")


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}

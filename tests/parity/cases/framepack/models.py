"""The models of a FramePack folder: its own from it, VAE and text encoders from the HunyuanVideo folder beside it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gamecraft_core.base.preset import Preset, VisionConfig
from gamecraft_core.base.spec import Layout
from gamecraft_core.families.framepack import FramePackDenoiser, build_model
from gamecraft_core.families.framepack_start import SightEncoder
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.weights.loader import load_dit
from tests.parity.cases.hunyuan.models import VAE, vae
from tests.parity.golden import Folder
from tests.parity.models import preset, vae_config

_DIT, _SIGLIP = "transformer_tiny_weights", "siglip_tiny_weights"
_FIELDS = {
    "num_attention_heads": "num_heads",
    "num_layers": "depth_double_blocks",
    "num_single_layers": "depth_single_blocks",
    "mlp_ratio": "mlp_width_ratio",
    "rope_axes_dim": "rope_dim_list",
    "rope_theta": "rope_theta",
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "text_embed_dim": "text_states_dim",
    "pooled_projection_dim": "text_states_dim_2",
    "guidance_embeds": "guidance_embed",
    "image_proj_dim": "image_dim",
}


@cache
def config(folder: Folder) -> dict[str, Any]:
    content: dict[str, Any] = folder.json("config.json")
    return content


@cache
def beside(folder: Folder) -> Folder:
    """The HunyuanVideo folder that this one shares models with."""
    return Folder(folder.path.parent / "hunyuanvideo", "hunyuanvideo")


def dit_sizes(described: dict[str, Any]) -> dict[str, Any]:
    """The transformer's sizes under the names of a preset."""
    sizes = {ours: described[theirs] for theirs, ours in _FIELDS.items()}
    sizes["hidden_size"] = described["num_attention_heads"] * described["attention_head_dim"]
    sizes["patch_size"] = (described["patch_size_t"], *[described["patch_size"]] * 2)
    return sizes


@cache
def settings(folder: Folder, layout: Layout = "inverted") -> Preset:
    """A preset whose weights are the folders'."""
    vae = beside(folder)
    files = {"dit": str(folder.path / f"{_DIT}.safetensors"), "vae": str(vae.path / f"{VAE}.safetensors")}
    parts: dict[str, dict[str, Any]] = {
        "weights": {"kind": "files", **files},
        "dit": dit_sizes(config(folder)["transformer"]),
        "vae": vae_config(config(vae)["vae"]).model_dump(),
        "video": {"height": 32, "width": 32, "chunk_frames": 36, "fps": 30, "layout": layout},
    }
    return preset(**parts).model_copy(update={"family": "framepack"})


@cache
def denoiser(folder: Folder, layout: Layout = "inverted") -> FramePackDenoiser:
    chosen = settings(folder, layout)
    model = build_model(chosen, "meta", torch.float32)
    load_dit(chosen, model)
    return FramePackDenoiser(chosen, model, Solo())


@cache
def vae_codec(folder: Folder) -> VaeCodec:
    """With temporal tiles only, as the goldens were made."""
    models = beside(folder)
    model = vae(models)
    model.tiling = dataclasses.replace(model.tiling, space=False, time=True)
    return VaeCodec(settings(folder), model, "cpu")


@cache
def sight_encoder(folder: Folder) -> SightEncoder:
    """SigLIP from a folder laid out as the hub's: a configuration and weights."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "config.json").write_text(json.dumps(config(folder)["siglip"]), encoding="utf-8")
        shutil.copyfile(folder.path / f"{_SIGLIP}.safetensors", Path(scratch) / "model.safetensors")
        chosen = settings(folder).model_copy(update={"vision": VisionConfig(path=scratch)})
        return SightEncoder(chosen, torch.device("cpu"))

"""The presets of published models: as many weights as those have, and the tiny ones beside them of the same kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gamecraft_core.base.family import family_of, load
from gamecraft_core.base.preset import Preset
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.source import Shape
from jobs.config import load_preset

PARITY = Path(__file__).parents[1] / "parity"
#: Of the transformers, as published.
WEIGHTS = {"hunyuan-video": 12_821_012_544, "framepack": 12_874_314_816, "framepack-f1": 12_874_314_816}
VAE_WEIGHTS = 246_478_803


def shapes(preset: Preset) -> list[Shape]:
    build_model = load(family_of(preset.family).denoiser).build_model
    return [tuple(each.shape) for each in build_model(preset, "meta", torch.float32).state_dict().values()]


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_preset_has_the_published_models_size(name: str) -> None:
    preset = load_preset(name)
    assert sum(torch.Size(shape).numel() for shape in shapes(preset)) == WEIGHTS[name]
    with torch.device("meta"):
        vae = CausalVae(preset.vae)
    assert sum(each.numel() for each in vae.parameters()) == VAE_WEIGHTS


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_tiny_preset_differs_in_sizes_only(name: str) -> None:
    real, tiny = load_preset(name), load_preset(f"tiny-{name}")
    for group, free in (("sampling", {"steps", "tea_cache", "seed"}), ("text", {"llm", "clip", "image_crop_start"})):
        assert getattr(tiny, group).model_dump(exclude=free) == getattr(real, group).model_dump(exclude=free)
    assert (tiny.family, tiny.video.layout, tiny.video.fps) == (real.family, real.video.layout, real.video.fps)
    assert (tiny.dit.guidance_embed, bool(tiny.dit.image_dim)) == (real.dit.guidance_embed, bool(real.dit.image_dim))
    if tiny.vision is not None:
        assert tiny.vision.random is not None
        assert tiny.vision.random["hidden_size"] == tiny.dit.image_dim


def test_the_negative_prompt_and_the_templates_are_the_published_ones() -> None:
    published = json.loads((PARITY / "hunyuanvideo" / "prompt_token_ids.json").read_text())
    hunyuan, framepack = load_preset("hunyuan-video"), load_preset("framepack")
    assert hunyuan.sampling.negative_prompt == published["default_negative_prompt"]
    assert framepack.sampling.negative_prompt == ""
    starts = {kind: each["crop_start"] for kind, each in published["templates"].items()}
    assert starts == {"dit-llm-encode": hunyuan.text.image_crop_start, "dit-llm-encode-video": hunyuan.text.crop_start}
    assert framepack.text.crop_start == hunyuan.text.crop_start
    assert framepack.text.image_template == ""

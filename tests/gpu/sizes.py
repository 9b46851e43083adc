"""The real model's sizes at 704x1216, one block of each kind deep, with seeded weights made on the device."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from gamecraft_core.base.preset import Preset
from gamecraft_core.families.gamecraft import GameCraft, build_model
from jobs.config import load_preset

Model = TypeVar("Model", bound=nn.Module)

FIRST_TOKENS = 33_440
NEXT_TOKENS = 60_192
TEXT_TOKENS = 256


def real_preset(double: int = 1, single: int = 2, name: str = "gamecraft-distill", **runtime: Any) -> Preset:
    """A real preset, cut in depth."""
    preset = load_preset(name)
    depth = {"depth_double_blocks": double, "depth_single_blocks": single}
    return preset.model_copy(
        update={
            "dit": preset.dit.model_copy(update=depth),
            "runtime": preset.runtime.model_copy(update=runtime),
        }
    )


def random_model(preset: Preset, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> GameCraft:
    """GameCraft's, on ``device``."""
    return drawn(build_model(preset, device, dtype), device)


def drawn(model: Model, device: torch.device) -> Model:
    """Weights drawn on ``device``: the seeded draws of ``weights.kind`` random take minutes at this size."""
    generator = torch.Generator(device).manual_seed(7)
    for name, weight in model.named_parameters():
        spread = 0.1 if weight.dim() < 2 else weight[0].numel() ** -0.5
        weight.normal_(0, spread, generator=generator)
        if "norm" in name or name.endswith(".scale"):
            weight.add_(1)
    return model

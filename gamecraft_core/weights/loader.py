"""Giving a model its weights as the preset says: seeded draws, or the files it names."""

from __future__ import annotations

import torch
from torch import nn

from gamecraft_core.base.preset import Preset
from gamecraft_core.weights.fill import Device, fill
from gamecraft_core.weights.random_init import fill_random
from gamecraft_core.weights.readers import open_dit, open_vae


def load_dit(preset: Preset, module: nn.Module, device: Device = None) -> None:
    """Fill the transformer ``module``, best built on the meta device; dtypes stay those it was built with."""
    if preset.weights.kind == "random":
        fill_random(module, preset.weights.seed, device)
    else:
        fill(module, open_dit(preset.weights.dit or ""), "weights.dit", device)


def load_vae(preset: Preset, module: nn.Module, device: Device = None) -> None:
    """Fill the VAE ``module``, best built on the meta device, in the preset's ``vae_dtype``."""
    module.to(getattr(torch, preset.runtime.vae_dtype))
    if preset.weights.kind == "random":
        fill_random(module, preset.weights.seed, device)
    else:
        fill(module, open_vae(preset.weights.vae or ""), "weights.vae", device)

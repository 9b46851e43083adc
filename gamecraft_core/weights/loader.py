"""Giving a model its weights as the preset says: seeded draws, or the files it names."""

from __future__ import annotations

import torch
from torch import nn

from gamecraft_core.base.preset import Preset
from gamecraft_core.weights.fill import Device, fill, refuse_fp8
from gamecraft_core.weights.quantise import has_fp8, quantise_model, quantised, require_fp8
from gamecraft_core.weights.random_init import fill_random
from gamecraft_core.weights.readers import open_dit, open_vae


def load_dit(preset: Preset, module: nn.Module, device: Device = None, computes_on: Device = None) -> None:
    """Fill the transformer ``module``, best built on the meta device; dtypes stay those it was built with.

    With ``runtime.fp8`` its blocks' linears become fp8 layers, each converted as it is read unless stored so.
    ``computes_on`` is where they run, if not on the ``device`` that keeps the weights.
    """
    place = torch.device(computes_on or device or "cpu")
    fp8 = preset.runtime.fp8
    source = None if preset.weights.kind == "random" else open_dit(preset.weights.dit or "")
    if fp8 and not has_fp8(place):
        if source:
            refuse_fp8(source, module.state_dict(), "weights.dit", place)
        require_fp8(place, "fp8 weights are asked for", "runtime.fp8")
    if source is None:
        fill_random(module, preset.weights.seed, device)
        if fp8:
            quantise_model(module)
    elif fp8:
        fill(module, quantised(source, quantise_model(module), place), "weights.dit", device)
    else:
        refuse_fp8(source, module.state_dict(), "weights.dit", place)
        fill(module, source, "weights.dit", device)


def load_vae(preset: Preset, module: nn.Module, device: Device = None) -> None:
    """Fill the VAE ``module``, best built on the meta device, in the preset's ``vae_dtype``."""
    module.to(getattr(torch, preset.runtime.vae_dtype))
    if preset.weights.kind == "random":
        fill_random(module, preset.weights.seed, device)
    else:
        fill(module, open_vae(preset.weights.vae or ""), "weights.vae", device)

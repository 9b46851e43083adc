"""Models put together for one process: built without storage, filled from the preset's weights, on its device."""

from __future__ import annotations

import platform

import torch

from gamecraft_core.base.preset import Preset
from gamecraft_core.families.gamecraft import GameCraftDenoiser, build_model
from gamecraft_core.parallel.collective import Collective
from gamecraft_core.text.encoders import TextEncoder
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.loader import load_dit, load_vae


def prepare(preset: Preset, threads: int | None) -> torch.device:
    """Fix this process's threads, and choose its device."""
    torch.set_num_threads(threads or preset.runtime.threads)
    wanted = preset.runtime.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def hardware(device: torch.device) -> str:
    """The name that records carry: the GPU's, or the processor's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"


def denoiser(preset: Preset, device: torch.device, collective: Collective) -> GameCraftDenoiser:
    model = build_model(preset, "meta", getattr(torch, preset.runtime.dtype))
    load_dit(preset, model, device)
    return GameCraftDenoiser(preset, model, collective)


def vae_codec(preset: Preset, device: torch.device) -> VaeCodec:
    with torch.device("meta"):
        vae = CausalVae(preset.vae)
    load_vae(preset, vae, device)
    return VaeCodec(preset, vae, device)


def text_encoder(preset: Preset, device: torch.device) -> TextEncoder:
    return TextEncoder(preset, device)

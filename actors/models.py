"""Models put together for one process: built without storage, filled from the preset's weights, on its device."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import torch

from gamecraft_core.attention.hybrid import check_hybrid, hybrid_attention
from gamecraft_core.attention.kernel import pick_kernel
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.family import family_of, load
from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.offload import offload
from gamecraft_core.dit.trunk import Trunk
from gamecraft_core.families.denoiser import Denoiser as OneDenoiser
from gamecraft_core.families.guidance_split import GuidanceSplit
from gamecraft_core.families.paint import Painter
from gamecraft_core.families.start import Starter
from gamecraft_core.parallel.collective import Collective
from gamecraft_core.parallel.layout import SOLO, Layout, halve
from gamecraft_core.text.encoders import TextEncoder
from gamecraft_core.text.rewrite import PromptRewriter
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.loader import load_dit, load_vae

#: What denoises on a rank: the whole of a chunk's branches, or one of them in each half of the group.
Denoiser = OneDenoiser[Any] | GuidanceSplit

#: Parameters of glibc's mallopt, and the size below which memory stays with the process.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30


def prepare(preset: Preset, threads: int | None) -> torch.device:
    """Fix this process's threads, have it keep the memory it frees, and choose its device."""
    torch.set_num_threads(threads or preset.runtime.threads)
    keep_freed_memory()
    wanted = preset.runtime.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def keep_freed_memory() -> None:
    """Let glibc reuse what tensors free. It would hand it back and fault it in again: a fifth of a forward on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def hardware(device: torch.device) -> str:
    """The name that records carry: the GPU's, or the processor's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"


def denoiser(preset: Preset, device: torch.device, collective: Collective, layout: Layout = SOLO) -> Denoiser:
    """This rank's part of a group of ``layout`` that ``collective`` joins. Every rank of the group calls."""
    kernel = pick_kernel(preset.runtime.attention, device, getattr(torch, preset.runtime.dtype))
    if layout.ring_degree > 1:
        check_hybrid(kernel, layout, preset.dit.num_heads, device)
    family: type[OneDenoiser[Any]] = load(family_of(preset.family).denoiser)
    model = _dit(preset, family, device)

    def attend(over: Collective) -> JointAttention:
        if layout.ring_degree == 1:
            return JointAttention(kernel, over)
        return hybrid_attention(kernel, over, layout, preset.dit.num_heads, device)

    if not layout.split_guidance:
        return family(preset, model, collective, attend=attend(collective))
    halves = halve()
    return GuidanceSplit(
        whole=family(preset, model, collective),
        halves=family(preset, model, halves.own, attend=attend(halves.own), across=halves.across),
    )


def _dit(preset: Preset, family: type[OneDenoiser[Any]], device: torch.device) -> Trunk:
    """The transformer with its weights on ``device``, or the part of them that its preset keeps there."""
    model: Trunk = family.build_model(preset, "meta", getattr(torch, preset.runtime.dtype))
    if preset.runtime.offload == "none":
        load_dit(preset, model, device)
    else:
        load_dit(preset, model, "cpu", computes_on=device)
        offload(model, preset.runtime.offload, device)
    return model


def vae_codec(preset: Preset, device: torch.device) -> VaeCodec:
    """The VAE on ``device``; where that is "cuda" without a number, on every GPU shown to this process.

    Ray shows an actor those it reserved: a lane of ``num_gpus: 4`` spreads its tiles over four.
    """
    with torch.device("meta"):
        vae = CausalVae(preset.vae)
    load_vae(preset, vae, device)
    if device.type != "cuda" or device.index is not None:
        return VaeCodec(preset, vae, device)
    return VaeCodec(preset, vae, *(torch.device("cuda", number) for number in range(torch.cuda.device_count())))


def text_encoder(preset: Preset, device: torch.device) -> TextEncoder:
    return TextEncoder(preset, device)


def prompt_rewriter(preset: Preset, device: torch.device) -> PromptRewriter | None:
    """Where the preset asks for one."""
    return PromptRewriter(preset, device) if preset.text.rewrite else None


def starter(preset: Preset, device: torch.device) -> Starter:
    """What makes a start's payload of its pixels."""
    made: Starter = load(family_of(preset.family).starter)(preset, vae_codec(preset, device), device)
    return made


def painter(preset: Preset, codec: VaeCodec) -> Painter:
    """What makes a chunk's pixels of its payload."""
    made: Painter = load(family_of(preset.family).painter)(preset, codec)
    return made

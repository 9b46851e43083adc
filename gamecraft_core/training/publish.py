"""From averaged weights to the files that inference reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from gamecraft_core.training.vae_forward import encode
from gamecraft_core.vae.model import CausalVae


def write_weights(states: dict[str, Tensor], path: Path) -> None:
    """``states`` as bf16 safetensors, at once or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    save_file({name: value.detach().to(torch.bfloat16).contiguous() for name, value in states.items()}, str(scratch))
    scratch.replace(path)


def take_average(module: nn.Module, average: dict[str, Tensor]) -> None:
    """Give ``module`` the averaged weights."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(average[name])


@torch.no_grad()
def normalise_latents(vae: CausalVae, clips: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Make every latent channel's mean 0 and deviation 1 over ``clips``, by the two 1x1 convolutions around them.

    What the VAE makes of a clip does not change, and the scaling factor of its preset is 1. Returns what was taken
    out: means and deviations, each [channels].
    """
    latents = torch.cat([encode(vae, clip)[0].transpose(0, 1).flatten(1) for clip in clips], dim=1)
    mean, deviation = latents.mean(dim=1), latents.std(dim=1).clamp(min=1e-3)
    channels = len(mean)
    inward, outward = vae.quant_conv, vae.post_quant_conv
    assert inward.bias is not None
    assert outward.bias is not None
    inward.weight[:channels] /= deviation.view(-1, 1, 1, 1, 1)
    inward.bias[:channels] = (inward.bias[:channels] - mean) / deviation
    inward.bias[channels:] -= 2 * deviation.log()
    outward.bias += (outward.weight[..., 0, 0, 0] * mean).sum(dim=1)
    outward.weight *= deviation.view(1, -1, 1, 1, 1)
    return mean, deviation

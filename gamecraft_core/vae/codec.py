"""Pixels to history latents and latents to pixels, as numpy arrays, the way a session needs them.

Invariant: an answer depends on its arguments and the weights only. The posterior is sampled (the released pipeline
does not take its mean) with noise from the session's seed, in float32 on the CPU.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.preset import Preset
from gamecraft_core.sampling.noise import Purpose, draw
from gamecraft_core.vae.model import CausalVae

Frames = npt.NDArray[np.uint8]


class VaeCodec:
    """The VAE of one lane, on its device; up to ``tile_batch`` tiles run at once, in as many times the memory."""

    def __init__(self, preset: Preset, vae: CausalVae, device: torch.device | str, *, tile_batch: int = 1) -> None:
        self._device = torch.device(device)
        self._dtype: torch.dtype = getattr(torch, preset.runtime.vae_dtype)
        self._scale = preset.vae.scaling_factor
        self._vae = vae.eval().requires_grad_(False).to(self._device, self._dtype)
        self._vae.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._vae.tiling = dataclasses.replace(self._vae.tiling, batch=tile_batch)

    def encode_image(self, pixels: Frames, seed: int) -> FloatArray:
        """One image [H, W, 3] to one history latent frame [16, 1, h, w]."""
        return self._encode(pixels[None], seed, "image_posterior")

    def encode_clip(self, pixels: Frames, seed: int) -> FloatArray:
        """A clip [F, H, W, 3] to history latents [16, T, h, w]."""
        return self._encode(pixels, seed, "clip_posterior")

    def moments(self, pixels: Frames) -> tuple[Tensor, Tensor]:
        """A clip [F, H, W, 3] to (mean, log variance), each float32 [16, T, h, w] on the CPU."""
        x = torch.tensor(pixels, device=self._device).permute(3, 0, 1, 2)[None]
        x = x.float().div_(127.5).sub_(1.0).to(self._dtype)
        mean, logvar = (part[0].float().cpu() for part in self._vae.encode(x))
        return mean, logvar

    @torch.inference_mode()
    def _encode(self, pixels: Frames, seed: int, purpose: Purpose) -> FloatArray:
        mean, logvar = self.moments(pixels)
        noise = torch.from_numpy(draw(seed, 0, purpose, tuple(mean.shape)))
        latents = (mean + torch.exp(0.5 * logvar) * noise) * self._scale
        _require_finite(latents, "VAE encoder")
        return np.ascontiguousarray(latents.numpy())

    @torch.inference_mode()
    def decode(self, latents: FloatArray) -> Frames:
        """Latents [16, T, h, w] to frames [F, H, W, 3]. Values are cut to 8 bits, not rounded, like the reference."""
        pixels = self.decode_float(latents)
        _require_finite(pixels, "VAE decoder")
        frames = pixels.mul_(255.0).to(torch.uint8).permute(1, 2, 3, 0)
        return frames.contiguous().cpu().numpy()

    @torch.inference_mode()
    def decode_float(self, latents: FloatArray) -> Tensor:
        """Latents [16, T, h, w] to float32 frames [3, F, H, W] in 0..1, on the lane's device."""
        z = torch.tensor(latents, dtype=torch.float32, device=self._device)[None] / self._scale
        pixels = self._vae.decode(z.to(self._dtype))[0]
        return pixels.float().div_(2.0).add_(0.5).clamp_(0.0, 1.0)


def _require_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values.sum(dtype=torch.float64))):
        raise Poisoned(f"the {what} produced a number that is not finite", remedy="check the weights and vae_dtype")

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
from gamecraft_core.vae.spread import Spread
from gamecraft_core.vae.tiling import Window

Frames = npt.NDArray[np.uint8]
Device = torch.device | str


class VaeCodec:
    """The VAE of one lane, on its device; with ``others``, a copy on each shares the tiles of every call."""

    def __init__(self, preset: Preset, vae: CausalVae, device: Device, *others: Device) -> None:
        self._device = torch.device(device)
        self._dtype: torch.dtype = getattr(torch, preset.runtime.vae_dtype)
        self._scale = preset.vae.scaling_factor
        vae.eval().requires_grad_(False).to(self._device, self._dtype)
        vae.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        vae.tiling = dataclasses.replace(vae.tiling, batch=preset.runtime.vae_tile_batch)
        self._vae = Spread(vae, [torch.device(other) for other in others]) if others else vae

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
        frames = self.decode_float(latents).mul_(255.0).to(torch.uint8).permute(1, 2, 3, 0)
        return frames.contiguous().cpu().numpy()

    @torch.inference_mode()
    def decode_float(self, latents: FloatArray) -> Tensor:
        """Latents [16, T, h, w] to float32 frames [3, F, H, W] in 0..1, on the lane's device."""
        return self.pixels(latents).div_(2.0).add_(0.5).clamp_(0.0, 1.0)

    @torch.inference_mode()
    def pixels(self, latents: FloatArray, wanted: Window | None = None) -> Tensor:
        """Latents [16, T, h, w] to float32 frames [3, F, H, W] in about -1..1, not clamped, on the lane's device.

        Of ``wanted`` frames only, with the bits that they have among all, but without the work for the others.
        """
        z = torch.tensor(latents, dtype=torch.float32, device=self._device)[None] / self._scale
        pixels = self._vae.decode(z.to(self._dtype), wanted=wanted)[0]
        _require_finite(pixels, "VAE decoder")  # now: a clamp makes white or black of an infinity
        return pixels.float()


def _require_finite(values: Tensor, what: str) -> None:
    """One pass without a copy: NaN is both least and greatest where there is one. Without storage nothing is asked."""
    if not values.is_meta and not bool(torch.stack(torch.aminmax(values)).isfinite().all()):
        raise Poisoned(f"the {what} produced a number that is not finite", remedy="check the weights and vae_dtype")

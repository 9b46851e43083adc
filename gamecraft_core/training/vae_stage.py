"""Training the VAE: clips of micro worlds in, the same clips out, through the latents.

Single frames first, since they are cheap and each shows another world; then short clips; both as crops. Whole pictures
last, because the group norms pool over all that is passed in. The loss is L1 on pixels, on their differences (edges)
and on a coarse copy, with a light pull of the latents towards a unit normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gamecraft_core.base.preset import Preset
from gamecraft_core.micro.episodes import CHUNK_FRAMES, make_episode, to_unit
from gamecraft_core.training.ahead import Ahead
from gamecraft_core.training.vae_forward import decode, encode
from gamecraft_core.vae.model import CausalVae

_EDGES, _COARSE = 0.5, 0.5
#: Frames and pixels a frame; see ``_is_safe``.
_MANY, _SMALL = 17, 48 * 80
#: Sides of a crop are multiples of a latent's.
_STEP = 8


@dataclass(frozen=True, slots=True)
class VaeSettings:
    """``clips_from``, ``whole_from``: the steps from which clips and whole pictures are taken. ``pull``: weight of the
    pull to a unit normal."""

    seed: int
    clips_from: int
    whole_from: int
    pull: float = 1e-3
    bf16: bool = True


@dataclass(frozen=True, slots=True)
class VaeClips:
    """Batches by step, uint8 [B, F, h, w, 3], every clip of another world: what a process beside the training makes."""

    preset: Preset
    settings: VaeSettings

    def __call__(self, step: int) -> Tensor:
        draw = np.random.Generator(np.random.Philox(key=[self.settings.seed, step]))
        clips, frames, part = self._shape(draw, step)
        return torch.stack([self._clip(draw, frames, part) for _ in range(clips)])

    def _shape(self, draw: np.random.Generator, step: int) -> tuple[int, int, int]:
        """Clips of the batch, frames of each, and what part of a picture's sides they take (one in ...)."""
        kind = draw.random()
        if step < self.settings.clips_from:
            return 12, 1, 2
        if step < self.settings.whole_from:
            return (12, 1, 2) if kind < 0.2 else (4, 9, 2) if kind < 0.7 else (3, 17, 2)
        return (4, 1, 1) if kind < 0.2 else (1, 17, 1) if kind < 0.7 else (1, CHUNK_FRAMES, 1)

    def _clip(self, draw: np.random.Generator, length: int, part: int) -> Tensor:
        video = self.preset.video
        first = int(draw.integers(CHUNK_FRAMES - length + 1))
        size = (video.height, video.width)
        episode = make_episode(
            int(draw.integers(2**40)), 1, size, self.preset.control, kept=slice(first, first + length)
        )
        height, width = (side // part // _STEP * _STEP for side in size)
        top, left = (int(draw.integers(side - kept + 1)) for side, kept in zip(size, (height, width), strict=True))
        return episode.pictures.frames[:, top : top + height, left : left + width]


class VaeObjective:
    """The VAE, and its loss on the batch of a step."""

    def __init__(self, vae: CausalVae, settings: VaeSettings, clips: Ahead[Tensor]) -> None:
        self._vae, self._settings, self._clips = vae, settings, clips

    @property
    def module(self) -> nn.Module:
        return self._vae

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        x = to_unit(self._clips.take()).contiguous(memory_format=torch.channels_last_3d)
        generator = torch.Generator().manual_seed(self._settings.seed * 1_000_003 + step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._settings.bf16 and _is_safe(x)):
            mean, logvar = encode(self._vae, x)
            z = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator)
            y = decode(self._vae, z)
        pixels = (y - x).abs().mean()
        pull = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        total = pixels + _EDGES * _edges(y, x) + _COARSE * _coarse(y, x) + self._settings.pull * pull
        with torch.no_grad():
            noise = (y.clamp(-1, 1) - x).square().mean().clamp(min=1e-9)
            psnr = float(10 * torch.log10(4 / noise))
            spread = float(mean.std())
        return total, {"pixels": float(pixels.detach()), "psnr": psnr, "pull": float(pull.detach()), "spread": spread}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Batches depend on the step alone."""


def _is_safe(x: Tensor) -> bool:
    """Whether bf16 convolutions may be trained on ``x`` [B, 3, F, H, W].

    oneDNN's weight gradients overrun their memory for few large frames (seen with torch 2.13 on an AMX processor at
    96 x 160: 1 to 5 frames crash, 17 and 33 do not). Such clips cost little: they run in float32.
    """
    return x.shape[2] >= _MANY or x.shape[3] * x.shape[4] <= _SMALL


def _edges(y: Tensor, x: Tensor) -> Tensor:
    change = y - x
    return change.diff(dim=-1).abs().mean() + change.diff(dim=-2).abs().mean()


def _coarse(y: Tensor, x: Tensor) -> Tensor:
    return F.avg_pool3d(y - x, (1, 8, 8)).abs().mean()

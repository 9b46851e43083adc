"""Training the VAE: clips of micro worlds in, the same clips out, through the latents.

Crops first, since they are cheap, then whole pictures, because the group norms pool over all that is passed in; and
mixed lengths, because the first frame of a clip is coded alone. The loss is L1 on pixels, on their differences (edges)
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
    """``whole_from``: the step from which whole pictures are taken. ``pull``: weight of the pull to a unit normal."""

    seed: int
    whole_from: int
    pull: float = 1e-4
    processes: int = 1
    bf16: bool = True


@dataclass(frozen=True, slots=True)
class VaeClips:
    """Batches by step, float16-free uint8 [B, F, h, w, 3]: what a process beside the training makes."""

    preset: Preset
    settings: VaeSettings

    def __call__(self, step: int) -> Tensor:
        draw = np.random.Generator(np.random.Philox(key=[self.settings.seed, step]))
        video = self.preset.video
        part = 1 if step >= self.settings.whole_from else 2 if 2 * step >= self.settings.whole_from else 3
        clips = []
        frames, crops = self._shape(draw, part)
        for number in range(1 if part == 1 and frames > 1 else 2):
            seed = int(draw.integers(2**40)) + number
            episode = make_episode(seed, 1, (video.height, video.width), self.preset.control)
            clips += [self._cut(draw, episode.chunk(0), frames, part) for _ in range(crops)]
        return torch.stack(clips)

    def _shape(self, draw: np.random.Generator, part: int) -> tuple[int, int]:
        """Frames of the batch's clips, and how many crops of each episode, whose sides are a ``part`` of the whole."""
        kind = draw.random()
        if kind < 0.2:
            return 1, 2 if part == 1 else 8
        if part == 1:
            return (CHUNK_FRAMES if kind < 0.5 else 17), 1
        return (9, part) if kind < 0.7 else (17, part - 1)

    def _cut(self, draw: np.random.Generator, frames: Tensor, length: int, part: int) -> Tensor:
        first = int(draw.integers(len(frames) - length + 1))
        height, width = (side // part // _STEP * _STEP for side in frames.shape[1:3])
        top, left = (
            int(draw.integers(side - kept + 1)) for side, kept in zip(frames.shape[1:3], (height, width), strict=True)
        )
        return frames[first : first + length, top : top + height, left : left + width]


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

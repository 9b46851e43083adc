"""What the transformer learns from: sessions of three chunks as latents, with their cameras and prompts.

They are made ahead, in order, and a rolling pool keeps the latest: a step sees the pool that its number stands for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.base.preset import Preset
from gamecraft_core.micro.episodes import CHUNK_FRAMES, make_episode, to_unit
from gamecraft_core.timeline.camera import control_rows
from gamecraft_core.training.ahead import Ahead
from gamecraft_core.training.vae_forward import encode
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.loader import load_vae

CHUNKS = 3

#: Samples that the first step waits for.
_FIRST = 48


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A session: ``clips`` [3, 16, T, h, w] and ``images`` [3, 16, 1, h, w] (float16, scaled), pose rows, prompt."""

    clips: Tensor
    images: Tensor
    rows: Tensor
    prompt: str


@dataclass(frozen=True, slots=True)
class Samples:
    """Sample by number, through the preset's VAE: what a process beside the training makes."""

    preset: Preset
    seed: int
    bf16: bool = True

    @torch.inference_mode()
    def __call__(self, number: int) -> Sample:
        vae = _vae(self.preset)
        video = self.preset.video
        draw = np.random.Generator(np.random.Philox([self.seed, number]))
        episode = make_episode(int(draw.integers(2**40)), CHUNKS, (video.height, video.width), self.preset.control)
        clips, images = [], []
        for index in range(CHUNKS):
            pixels = to_unit(episode.chunk(index))[None]
            clips.append(self._latents(vae, pixels, draw))
            images.append(self._latents(vae, pixels[:, :, :1], draw))
        rows = np.stack([control_rows(control, CHUNK_FRAMES) for control in episode.controls])
        return Sample(torch.stack(clips), torch.stack(images), torch.from_numpy(rows), episode.prompt)

    def _latents(self, vae: CausalVae, pixels: Tensor, draw: np.random.Generator) -> Tensor:
        """A draw from the posterior, as sessions start from."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            mean, logvar = encode(vae, pixels)
        noise = torch.from_numpy(draw.standard_normal(mean.shape, np.float32))
        return ((mean + torch.exp(0.5 * logvar) * noise)[0] * self.preset.vae.scaling_factor).half()


@lru_cache(maxsize=1)
def _vae(preset: Preset) -> CausalVae:
    with torch.device("meta"):
        vae = CausalVae(preset.vae)
    load_vae(preset, vae, "cpu")
    vae.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return vae


class Pool:
    """The latest ``size`` samples: a few at the start, and ``fresh`` more (a fraction, too) at every step."""

    def __init__(self, source: Ahead[Sample], size: int, fresh: float) -> None:
        self._source, self._size, self._fresh = source, size, fresh
        self._kept: deque[Sample] = deque(maxlen=size)
        self._taken = 0

    def at(self, step: int) -> deque[Sample]:
        """The pool of ``step``; steps are asked for in order."""
        while self._taken < min(_FIRST, self._size) + int(step * self._fresh):
            self._kept.append(self._source.take())
            self._taken += 1
        return self._kept

    def state(self) -> dict[str, Any]:
        kept = [[each.clips, each.images, each.rows, each.prompt] for each in self._kept]
        return {"taken": self._taken, "kept": kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue a pool whose source was made to go on at ``state["taken"]``."""
        self._taken = int(state["taken"])
        self._kept.extend(Sample(*each) for each in state["kept"])

"""Latents to small pictures without a decoder: each latent pixel's channels, weighted, are a colour.

The weights are learnt from the VAE itself, whichever it is: clips that are drawn from a seed go through its encoder and
its decoder, and least squares finds the colours that come closest to what the decoder shows in a latent pixel's place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.preset import VaeConfig

Frames = npt.NDArray[np.uint8]

#: Clips to learn from, their side in latent pixels, and their latent frames: 768 colours for 17 weights each.
_CLIPS, _SIDE, _LATENT_FRAMES = 6, 8, 2
#: Of the latents' mean variance: keeps directions that the clips hardly show from becoming loud in the preview.
_RIDGE = 1e-2
_SEED = 7


class Coder(Protocol):
    """What is asked of a VAE; see ``VaeCodec``."""

    def encode_clip(self, pixels: Frames, seed: int) -> FloatArray: ...
    def decode(self, latents: FloatArray) -> Frames: ...


@dataclass(frozen=True, slots=True)
class Preview:
    """``weights`` [channels, 3] and ``bias`` [3] give colours in 0..255."""

    weights: FloatArray
    bias: FloatArray

    def frames(self, latents: FloatArray) -> Frames:
        """Latents [channels, T, h, w] as pictures [T, h, w, 3], one for each latent frame."""
        colours = np.tensordot(latents, self.weights, axes=(0, 0)) + self.bias
        return colours.round().clip(0, 255).astype(np.uint8)


def learn(coder: Coder, config: VaeConfig) -> Preview:
    """The preview that comes closest to what ``coder`` decodes. The same for the same weights."""
    latents, colours = [], []
    for number, clip in enumerate(_clips(config)):
        z = coder.encode_clip(clip, number)
        latents.append(z.reshape(len(z), -1).T)
        colours.append(_pooled(coder.decode(z), config).reshape(-1, 3))
    x, y = np.concatenate(latents).astype(np.float64), np.concatenate(colours)
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    square = x.T @ x
    weights = np.linalg.solve(square + _RIDGE * np.trace(square) / len(square) * np.eye(len(square)), x.T @ y)
    return Preview(weights.astype(np.float32), (mean_y - mean_x @ weights).astype(np.float32))


def _pooled(frames: Frames, config: VaeConfig) -> npt.NDArray[np.float64]:
    """Mean colours [T, h, w, 3] of what each latent pixel stands for; a clip's first frame has a latent of its own."""
    side = config.spatial_compression_ratio
    count, height, width, channels = frames.shape
    grid = frames.reshape(count, height // side, side, width // side, side, channels).mean((2, 4))
    later = grid[1:].reshape(-1, config.time_compression_ratio, *grid.shape[1:]).mean(1)
    return np.concatenate([grid[:1], later])


def _clips(config: VaeConfig) -> list[Frames]:
    """Colours that meet in edges of several kinds, and move: ramps, checkers, and squares of random colours."""
    draw = np.random.default_rng(_SEED)
    side = _SIDE * config.spatial_compression_ratio
    count = 1 + (_LATENT_FRAMES - 1) * config.time_compression_ratio
    moment, down, across = np.meshgrid(np.arange(count), np.arange(side), np.arange(side), indexing="ij")
    clips = []
    for number in range(_CLIPS):
        colours = draw.uniform(0, 255, (4, 4, 3))
        angle, size = draw.uniform(0, 2 * np.pi), draw.choice([8, 16, 32])
        x, y = (place + speed * moment for place, speed in zip((across, down), draw.uniform(-2, 2, 2), strict=True))
        if number % 3 == 2:
            clip = colours[(y // size).astype(int) % 4, (x // size).astype(int) % 4]
        else:
            wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * np.pi / side)
            share = (0.5 + 0.5 * wave if number % 3 else (x // size + y // size) % 2)[..., None]
            clip = share * colours[0, 0] + (1 - share) * colours[0, 1]
        clips.append(clip.round().astype(np.uint8))
    return clips

"""Embedders: patches, timestep, pooled text, text projection. Key names are the published ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gamecraft_core.dit.layers import Linear

Size3 = tuple[int, int, int]

_FREQUENCIES = 256
_MAX_PERIOD = 10000.0


class PatchEmbed(nn.Module):
    """One linear over the values of a patch; its weights are stored as those of a convolution."""

    def __init__(self, channels: int, hidden: int, patch: Size3) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, hidden, patch, stride=patch)

    def forward(self, patches: Tensor) -> Tensor:
        """[tokens, values of a patch] to [tokens, hidden]."""
        weight = self.proj.weight.flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.proj.bias)

    def change(self, patches: Tensor) -> Tensor:
        """What the first channels add to an embedding made with zeros for them: [tokens, first values] likewise."""
        weight = self.proj.weight.flatten(1)[:, : patches.shape[-1]]
        return F.linear(patches.to(weight.dtype), weight)


class TimestepEmbedder(nn.Module):
    """Timesteps 0..1000 to vectors, through 256 cosines and sines."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(_FREQUENCIES, hidden), nn.SiLU(), Linear(hidden, hidden))

    def forward(self, timesteps: Tensor) -> Tensor:
        """float32 [steps] to [steps, hidden]."""
        half = _FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
        angles = timesteps[:, None] * torch.exp(-math.log(_MAX_PERIOD) * steps / half)
        result: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))
        return result


class VectorEmbedder(nn.Module):
    """Pooled text to a vector."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.in_layer = Linear(dim, hidden)
        self.out_layer = Linear(hidden, hidden)

    def forward(self, pooled: Tensor) -> Tensor:
        result: Tensor = self.out_layer(F.silu(self.in_layer(pooled)))
        return result


class TextProjection(nn.Module):
    """Mean text state to the refiner's condition."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear_1 = Linear(dim, hidden)
        self.linear_2 = Linear(hidden, hidden)

    def forward(self, mean_state: Tensor) -> Tensor:
        result: Tensor = self.linear_2(F.silu(self.linear_1(mean_state)))
        return result


def patchify(video: Tensor, patch: Size3) -> Tensor:
    """[channels, T, H, W] to [tokens, channels * patch], the order in which a patch convolution's weights lie."""
    channels, frames, height, width = video.shape
    t, h, w = patch
    split = video.reshape(channels, frames // t, t, height // h, h, width // w, w)
    return split.permute(1, 3, 5, 0, 2, 4, 6).reshape(-1, channels * t * h * w)


def unpatchify(tokens: Tensor, grid: Size3, patch: Size3) -> Tensor:
    """[tokens, channels * patch] to [channels, T, H, W]; the inverse of ``patchify``."""
    (frames, height, width), (t, h, w) = grid, patch
    split = tokens.reshape(frames, height, width, -1, t, h, w)
    return split.permute(3, 0, 4, 1, 5, 2, 6).reshape(-1, frames * t, height * h, width * w)

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
        return embed_patches(self.proj, patches)

    def change(self, patches: Tensor) -> Tensor:
        """What the first channels add to an embedding made with zeros for them: [tokens, first values] likewise."""
        weight = self.proj.weight.flatten(1)[:, : patches.shape[-1]]
        return F.linear(patches.to(weight.dtype), weight)


class CoarseEmbed(nn.Module):
    """Clean latents at three scales: a token for a patch, for two patches along each axis, for four."""

    def __init__(self, channels: int, hidden: int, patch: Size3) -> None:
        super().__init__()

        def scale(side: int) -> nn.Conv3d:
            cell = _cell(patch, side)
            return nn.Conv3d(channels, hidden, cell, stride=cell)

        self.proj, self.proj_2x, self.proj_4x = scale(1), scale(2), scale(4)
        self._patch = patch

    def forward(self, video: Tensor, side: int) -> Tensor:
        """Latents [channels, T, h, w] to [tokens, hidden], one for ``side`` (1, 2 or 4) patches along each axis.

        What does not divide is made longer by repeating what is last.
        """
        cell = _cell(self._patch, side)
        missing = [-size % part for size, part in zip(video.shape[1:], cell, strict=True)]
        if any(missing):
            video = F.pad(video, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")
        return embed_patches({1: self.proj, 2: self.proj_2x, 4: self.proj_4x}[side], patchify(video, cell))


class ImageProjection(nn.Module):
    """States of an image encoder to tokens that go with the text's."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(dim, 3 * hidden)
        self.down = Linear(3 * hidden, hidden)

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = self.down(F.silu(self.up(states)))
        return result


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


def embed_patches(convolution: nn.Conv3d, patches: Tensor) -> Tensor:
    """[tokens, values of a patch] to [tokens, hidden], as a convolution over whole patches gives them."""
    weight = convolution.weight.flatten(1)
    return F.linear(patches.to(weight.dtype), weight, convolution.bias)


def _cell(patch: Size3, side: int) -> Size3:
    t, h, w = patch
    return t * side, h * side, w * side


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

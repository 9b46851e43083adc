"""CameraNet: Plücker maps of a chunk become one token per patch and latent frame, added to the patch tokens.

Key names are the published ones. The pooling over time works on one clip or, for the two lengths that the published
code knows, on two clips laid end to end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Lengths that stand for two clips end to end: 33 + 33 pixel frames, and the 17 + 17 they are after one pooling.
_TWO_CLIPS = (34, 66)


class CameraNet(nn.Module):
    """Space-to-channel, two convolutions with time pooling, projection, patch embedding, one learned scale."""

    def __init__(
        self, in_channels: int, down: int, out_channels: int, patch_size: tuple[int, int, int], hidden: int
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.down = down
        wide = in_channels * down * down
        first, second = wide // 2, wide // 4
        self.encode_first = nn.Sequential(nn.Conv2d(wide, first, 1), nn.GroupNorm(2, first), nn.ReLU())
        self.encode_second = nn.Sequential(nn.Conv2d(first, second, 1), nn.GroupNorm(2, second), nn.ReLU())
        self.final_proj = nn.Conv2d(second, out_channels, 1)
        self.camera_in = _PatchConv(out_channels, hidden, patch_size)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, maps: Tensor) -> Tensor:
        """Tokens [latent frames * h * w, hidden] of ``maps`` [pixel frames, channels, H, W]; time outermost."""
        x = F.pixel_unshuffle(maps.to(self.scale.dtype), self.down)
        x = pool_time(self.encode_first(x))
        x = pool_time(self.encode_second(x))
        tokens: Tensor = self.camera_in.proj(self.final_proj(x).transpose(0, 1)[None])[0]
        return tokens.flatten(1).T * self.scale

    def zero_token(self) -> Tensor:
        """The one token [hidden] that a camera of zeros gives at every place and time."""
        side = self.down * self.camera_in.proj.kernel_size[-1]
        zeros = torch.zeros(1, self.in_channels, side, side, device=self.scale.device)
        return self.forward(zeros)[0]


class _PatchConv(nn.Module):
    """Patch embedding as a convolution whose stride is its kernel."""

    def __init__(self, channels: int, hidden: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, hidden, patch_size, stride=patch_size)


def pool_time(x: Tensor) -> Tensor:
    """Halve the frames of ``x`` [frames, ...]: a clip of odd length keeps its first and averages pairs of the rest."""
    frames = len(x)
    if frames in _TWO_CLIPS:
        return torch.cat([pool_time(half) for half in x.chunk(2)])
    if frames % 2:
        return torch.cat([x[:1], pool_time(x[1:])]) if frames > 1 else x
    return (x[0::2] + x[1::2]) / 2

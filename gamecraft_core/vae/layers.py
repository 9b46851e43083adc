"""Layers of the causal 3D VAE, under the official parameter names.

Every spatial kernel sees its input edge-replicated: one pixel on each side, two frames in front and none behind, so
no output frame depends on a later one. (Group norms pool over all frames passed in, so the whole is still not
streamable.) Layers only run; they hold no state between calls.

Speed and memory: what precedes a convolution (norm and SiLU, upsampling) is written straight into one padded buffer
that all convolutions of a call share, and tensors are channels-last.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPS = 1e-6
#: Numbers above which a CPU activates slab by slab, and those of a slab, which its cache still holds for the next step.
_LARGE, _CACHED = 2**22, 2**18
_FRONT = 2  # frames repeated before the first one by a kernel of 3

Fill = Callable[[Tensor], object]


class Scratch:
    """The padded convolution input of one call: as large as the largest yet asked for, overwritten each time."""

    def __init__(self) -> None:
        self._flat: Tensor | None = None

    def padded(self, like: Tensor, shape: tuple[int, int, int, int, int], fill: Fill) -> Tensor:
        """An edge-replicated input whose inside, of ``shape`` [B, C, T, H, W], is written by ``fill``."""
        batch, channels, frames, height, width = shape
        whole = self._take(like, (batch, channels, frames + _FRONT, height + 2, width + 2))
        fill(whole[:, :, _FRONT:, 1:-1, 1:-1])
        given = whole[:, :, _FRONT:]
        given[..., 1:-1, 0] = given[..., 1:-1, 1]
        given[..., 1:-1, -1] = given[..., 1:-1, -2]
        given[..., 0, :] = given[..., 1, :]
        given[..., -1, :] = given[..., -2, :]
        whole[:, :, :_FRONT] = whole[:, :, _FRONT : _FRONT + 1]
        return whole

    def _take(self, like: Tensor, shape: tuple[int, int, int, int, int]) -> Tensor:
        count = math.prod(shape)
        if self._flat is None or self._flat.numel() < count:
            self._flat = None  # freed before the larger one is taken
            self._flat = like.new_empty(count)
        batch, channels, *rest = shape
        return self._flat[:count].view(batch, *rest, channels).permute(0, 4, 1, 2, 3)


def on_cpu(x: Tensor) -> bool:
    """Whether the float32 CPU routes apply."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def convolve(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """``conv(x)``; on a CPU always by oneDNN, whose use PyTorch otherwise refuses to small inputs (10 x slower)."""
    if on_cpu(x) and torch._C._has_mkldnn:
        return torch.mkldnn_convolution(x, conv.weight, conv.bias, (0, 0, 0), conv.stride, conv.dilation, conv.groups)
    out: Tensor = conv(x)
    return out


class CausalConv3d(nn.Module):
    """A 3D convolution that never looks ahead in time."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: tuple[int, int, int] = (1, 1, 1)):
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, stride)

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        if self.conv.kernel_size == (1, 1, 1):
            return convolve(self.conv, x)
        return self.filled(x, x.shape[2:], scratch, lambda inside: inside.copy_(x))

    def filled(self, like: Tensor, size: tuple[int, ...], scratch: Scratch, fill: Fill) -> Tensor:
        """Convolve what ``fill`` writes: an input of ``size`` [T, H, W] with batch and dtype of ``like``."""
        shape = (like.shape[0], self.conv.in_channels, size[0], size[1], size[2])
        return convolve(self.conv, scratch.padded(like, shape, fill))

    def activated(self, x: Tensor, norm: nn.GroupNorm, scratch: Scratch) -> Tensor:
        """Convolve SiLU(norm(x))."""
        if not on_cpu(x):
            normed = norm(x)
            return self.filled(x, x.shape[2:], scratch, lambda inside: torch.ops.aten.silu.out(normed, out=inside))
        scale, shift = affine(norm, x)

        def activate(inside: Tensor) -> None:
            if x.numel() < _LARGE:
                torch.addcmul(shift, x, scale, out=inside)
                functional.silu(inside, inplace=True)
                return
            slabs = x.numel() // _CACHED
            for part, out in zip(x.chunk(slabs, dim=2), inside.chunk(slabs, dim=2), strict=True):
                torch.ops.aten.silu.out(torch.addcmul(shift, part, scale), out=out)

        return self.filled(x, x.shape[2:], scratch, activate)


def affine(norm: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """(scale, shift), each [B, C, 1, 1, 1], such that ``x * scale + shift`` is ``norm(x)``.

    PyTorch's channels-last group norm adds a group up in one float32 chain and loses 1e-4 of its variance. These are
    batch norm's statistics of one frame at a time, which stays in the cache for both passes, joined in float64.
    """
    frames = x.transpose(1, 2).flatten(0, 1)[:, None].unbind()
    of_frames = zip(*(torch.batch_norm_update_stats(frame, None, None, 0.0) for frame in frames), strict=True)
    means, variances = (
        torch.stack(part).double().view(len(x), -1, norm.num_groups, x.shape[1] // norm.num_groups)
        for part in of_frames
    )
    mean = means.mean((1, 3))[..., None]
    variance = (variances + means.square()).mean((1, 3))[..., None] - mean.square()
    scale = norm.weight.view(norm.num_groups, -1) * (variance.clamp_(min=0) + norm.eps).rsqrt()
    shift = norm.bias.view(norm.num_groups, -1) - scale * mean
    column = (*x.shape[:2], 1, 1, 1)
    return scale.view(column).to(x.dtype), shift.view(column).to(x.dtype)


class ResnetBlock(nn.Module):
    """Two activated convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, eps=_EPS)
        self.conv1 = CausalConv3d(channels_in, channels_out)
        self.norm2 = nn.GroupNorm(groups, channels_out, eps=_EPS)
        self.conv2 = CausalConv3d(channels_out, channels_out)
        self.conv_shortcut = CausalConv3d(channels_in, channels_out, kernel=1) if channels_in != channels_out else None

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        hidden = self.conv1.activated(x, self.norm1, scratch)
        hidden = self.conv2.activated(hidden, self.norm2, scratch)
        return hidden.add_(x if self.conv_shortcut is None else self.conv_shortcut(x, scratch))


class Downsample(nn.Module):
    """A strided causal convolution."""

    def __init__(self, channels: int, stride: tuple[int, int, int]):
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=stride)

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        out: Tensor = self.conv(x, scratch)
        return out


class Upsample(nn.Module):
    """Nearest upsampling, then a causal convolution; the first frame is never repeated in time."""

    def __init__(self, channels: int, factor: tuple[int, int, int]):
        super().__init__()
        self.factor = factor
        self.conv = CausalConv3d(channels, channels)

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        frames, height, width = x.shape[2:]
        by_t, by_h, by_w = self.factor

        def repeat(inside: Tensor) -> None:
            grid = inside.view(*inside.shape[:3], height, by_h, width, by_w)
            source = x[:, :, :, :, None, :, None]
            grid[:, :, :1].copy_(source[:, :, :1].expand_as(grid[:, :, :1]))
            if frames > 1:
                later = grid[:, :, 1:].view(*grid.shape[:2], frames - 1, by_t, *grid.shape[3:])
                later.copy_(source[:, :, 1:, None].expand_as(later))

        size = (1 + (frames - 1) * by_t, height * by_h, width * by_w)
        return self.conv.filled(x, size, scratch, repeat)


class Attention(nn.Module):
    """One head over all positions of a clip; causal: a frame attends itself and the frames before it."""

    def __init__(self, channels: int, groups: int, causal: bool):
        super().__init__()
        self.causal = causal
        self.group_norm = nn.GroupNorm(groups, channels, eps=_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        batch, channels, frames, height, width = x.shape
        if on_cpu(x):
            scale, shift = affine(self.group_norm, x)
            normed = torch.addcmul(shift, x, scale)
        else:
            normed = self.group_norm(x)
        tokens = normed.permute(0, 2, 3, 4, 1).reshape(batch, 1, -1, channels)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        block = height * width if self.causal else frames * height * width
        # Frame by frame over the prefix: a mask would hold (frames * height * width) ** 2 numbers.
        mixed = torch.cat(
            [
                functional.scaled_dot_product_attention(q[:, :, end - block : end], k[:, :, :end], v[:, :, :end])
                for end in range(block, q.shape[2] + 1, block)
            ],
            dim=2,
        )
        out: Tensor = self.to_out[0](mixed)
        return out.reshape(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3).add_(x)


class MidBlock(nn.Module):
    """Resnet, attention where the config asks for it, resnet."""

    def __init__(self, channels: int, groups: int, attention: bool, causal: bool):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups, causal)] if attention else [])
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, groups) for _ in range(2)])

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        x = self.resnets[0](x, scratch)
        for attention in self.attentions:
            x = attention(x, scratch)
        x = self.resnets[1](x, scratch)
        return x

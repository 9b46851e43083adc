"""Group norm with a backward pass that a CPU runs fast in bf16.

PyTorch's own takes most of a VAE's training step there (channels last). All it needs are sums per channel of the
gradient, alone and times the input; as products of matrices these run on the matrix units.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Below this many numbers PyTorch's own is as fast.
_LARGE = 2**19
#: Rows are added up in this many parts at most, whose bf16 sums are joined in float32.
_PARTS = 480
_ONES = 16


def group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """``norm(x)`` in the type of ``x`` [B, C, T, H, W], channels last where large."""
    if x.dtype != torch.bfloat16 or x.numel() < _LARGE or x.device.type != "cpu":
        return F.group_norm(x, norm.num_groups, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)
    result = _GroupNorm.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)  # type: ignore[no-untyped-call]
    assert isinstance(result, Tensor)
    return result


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels = x.shape[:2]
        count = x[0, 0].numel()
        y, mean, scale = torch.native_group_norm(
            x, weight.to(x.dtype), bias.to(x.dtype), batch, channels, count, groups, eps
        )
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, mean, scale = ctx.saved_tensors
        mean, scale = mean.float(), scale.float()  # [B, groups]
        grad = grads[0].contiguous(memory_format=torch.channels_last_3d)
        batch, channels = x.shape[:2]
        groups = mean.shape[1]
        rows, inputs = (part.permute(0, 2, 3, 4, 1).reshape(batch, -1, channels) for part in (grad, x))
        parts = math.gcd(rows.shape[1], _PARTS)
        rows, inputs = (part.reshape(batch * parts, -1, channels) for part in (rows, inputs))
        ones = rows.new_ones(1, rows.shape[1], _ONES).expand(len(rows), -1, -1)
        alone = torch.bmm(rows.mT, ones)[..., 0].float().view(batch, parts, channels).sum(1)
        times = torch.bmm(rows.mT, inputs).float().diagonal(dim1=1, dim2=2).reshape(batch, parts, channels).sum(1)

        def per_channel(values: Tensor) -> Tensor:
            return values.repeat_interleave(channels // groups, dim=1)

        grad_weight = ((times - per_channel(mean) * alone) * per_channel(scale)).sum(0)
        first = (alone * weight).view(batch, groups, -1).sum(2)
        second = (times * weight).view(batch, groups, -1).sum(2)
        count = x[0, 0].numel() * (channels // groups)
        slope = -(scale**3) * (second - mean * first) / count
        offset = -scale * first / count - slope * mean
        of_grad, of_x, constant = (
            values.to(x.dtype).view(batch, channels, 1, 1, 1)
            for values in (per_channel(scale) * weight, per_channel(slope), per_channel(offset))
        )
        return torch.addcmul(constant, x, of_x).addcmul_(grad, of_grad), grad_weight, alone.sum(0), None, None

"""The small parts that blocks and embedders share.

Precision rule of the trunk, in place of autocast: a linear casts its input to its own weights' type, norms and
rotations compute in float32, and residual streams keep the type they arrive in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6


class Linear(nn.Linear):
    """A linear layer that takes any input type, and that can compute some of its outputs only."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def part(self, x: Tensor, start: int, stop: int | None = None) -> Tensor:
        """Output features ``start`` to ``stop``."""
        bias = None if self.bias is None else self.bias[start:stop]
        return F.linear(x.to(self.weight.dtype), self.weight[start:stop], bias)


class RMSNorm(nn.Module):
    """Root-mean-square norm of each head, in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), NORM_EPS)


class MLP(nn.Module):
    """Two linears around GELU (tanh form), or around SiLU in the text refiner."""

    def __init__(self, dim: int, hidden: int, *, silu: bool = False) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)
        self._silu = silu

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        x = F.silu(x) if self._silu else gelu(x)
        result: Tensor = self.fc2(x)
        return result


class Modulation(nn.Module):
    """``parts`` vectors of a block (shift, scale, gate, ...) from the vector that drives the model."""

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.linear = Linear(dim, parts * dim)
        self._parts = parts

    def forward(self, vector: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.linear(F.silu(vector)).chunk(self._parts, dim=-1))


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights, then ``* (1 + scale) + shift``, in float32."""
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=NORM_EPS)
    return torch.addcmul(shift.float(), normed, 1 + scale.float())


def gated(x: Tensor, gate: Tensor, change: Tensor) -> Tensor:
    """``x + gate * change``, in the type of ``x``."""
    return torch.addcmul(x, gate, change)


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[n, 3 * heads * d] to q, k, v of [n, heads, d]."""
    q, k, v = qkv.reshape(len(qkv), 3, heads, -1).unbind(1)
    return q, k, v

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

    def gelu(self, x: Tensor, start: int = 0) -> Tensor:
        """GELU (tanh form) of the output features from ``start`` on."""
        if _fuses_gelu(x, self.weight):
            bias = None if self.bias is None else self.bias[start:]
            fused: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight[start:], bias, "gelu", [], "tanh")
            return fused
        result: Tensor = torch.ops.aten.gelu_(self.part(x, start), approximate="tanh")
        return result


def _fuses_gelu(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's matmul with GELU in its epilogue applies; PyTorch's own GELU costs half a matmul on a CPU."""
    is_float = x.dtype == weight.dtype == torch.float32
    return is_float and x.device.type == "cpu" and torch._C._has_mkldnn and not torch.compiler.is_compiling()


class RMSNorm(nn.Module):
    """Weight of a root-mean-square norm over a head's channels; ``heads_of`` computes it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))


class MLP(nn.Module):
    """Two linears around GELU (tanh form), or around SiLU in the text refiner."""

    def __init__(self, dim: int, hidden: int, *, silu: bool = False) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)
        self._silu = silu

    def forward(self, x: Tensor) -> Tensor:
        inner = F.silu(self.fc1(x), inplace=True) if self._silu else self.fc1.gelu(x)
        result: Tensor = self.fc2(inner)
        return result


class Modulation(nn.Module):
    """``parts`` vectors of a block (shift, scale, gate, ...) from the vector that drives the model."""

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.linear = Linear(dim, parts * dim)
        self._parts = parts

    def forward(self, vectors: Tensor) -> Tensor:
        """[steps, dim] to [steps, parts, dim]."""
        result: Tensor = self.linear(F.silu(vectors))
        return result.view(len(vectors), self._parts, -1)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights, then ``* (1 + scale) + shift``, in float32."""
    return F.layer_norm(x.float(), x.shape[-1:], 1 + scale.float(), shift.float(), NORM_EPS)


def add_gated_(x: Tensor, gate: Tensor, change: Tensor) -> Tensor:
    """``x + gate * change``, in place."""
    return x.addcmul_(gate, change)

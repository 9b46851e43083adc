"""Muon: momentum whose matrices are made orthogonal before they are applied (Jordan et al., 2024).

Every update of a matrix has singular values near 1, so a rate says how far any layer's output may move, whatever its
size, and small batches do not blow up the directions that pictures are brightest in. Convolutions count as matrices
of [channels out, channels in x taps]. Vectors (biases, norms) are not for it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_MOMENTUM = 0.95
#: Newton-Schulz: five steps of this odd polynomial bring singular values to 0.7..1.2.
_STEPS, _POLYNOMIAL = 5, (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """One rate for all; weights decay by ``rate * decay``."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update."""
        for group in self.param_groups:
            for value in group["params"]:
                if value.grad is None:
                    continue
                state = self.state[value]
                if not state:
                    state["momentum"] = torch.zeros_like(value)
                momentum = state["momentum"].lerp_(value.grad, 1 - _MOMENTUM)
                update = orthogonal(value.grad.lerp(momentum, _MOMENTUM).flatten(1)).view_as(value)
                value.mul_(1 - group["lr"] * group["decay"]).sub_(update, alpha=group["lr"] * reach(value))


def reach(value: Tensor) -> float:
    """What an orthogonal update of ``value`` is multiplied by: the growth of its outputs, evenly over its taps."""
    outs, ins, *taps = value.shape
    return float((max(outs, ins) / (ins * torch.Size(taps).numel())) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix [rows, columns] with its singular values brought near 1, in its own type; bf16 inside."""
    x = matrix.bfloat16()
    x = x.T if x.shape[0] > x.shape[1] else x
    x = x / (x.norm() + 1e-7)
    a, b, c = _POLYNOMIAL
    for _ in range(_STEPS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)

"""Solvers of the flow: one update from sigma to the next, smaller one."""

from __future__ import annotations

from torch import Tensor


def euler(x: Tensor, velocity: Tensor, change: float) -> Tensor:
    """``x + velocity * change`` computed in float32 and returned in the type of ``x``.

    ``change`` is the next sigma minus this one, subtracted in float32.
    """
    return (x.float() + velocity.float() * change).to(x.dtype)

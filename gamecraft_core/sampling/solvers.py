"""Solvers of the flow: from one sigma to the next, smaller one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gamecraft_core.timeline.schedule import Schedule

#: Where the next step predicts, or at last the result, from (latents, velocity, step). One run's own: it may remember.
Solver = Callable[[Tensor, Tensor, int], Tensor]


def euler(x: Tensor, velocity: Tensor, change: float) -> Tensor:
    """``x + velocity * change`` computed in float32 and returned in the type of ``x``.

    ``change`` is the next sigma minus this one, subtracted in float32.
    """
    return (x.float() + velocity.float() * change).to(x.dtype)


def euler_steps(schedule: Schedule) -> Solver:
    """A solver that takes every step by ``euler``."""
    changes = schedule.sigmas[1:] - schedule.sigmas[:-1]

    def solve(latents: Tensor, velocity: Tensor, step: int) -> Tensor:
        return euler(latents, velocity, float(changes[step]))

    return solve

"""The denoise loop: predict, step, tell. What is predicted, and how a step is taken, is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gamecraft_core.sampling.solvers import Solver, euler_steps
from gamecraft_core.timeline.schedule import Schedule

#: Velocity of latents at (step, timestep).
Predict = Callable[[Tensor, int, float], Tensor]
#: Told after every step: how many steps are done, and the latents as they are now.
OnStep = Callable[[int, Tensor], None]


def denoise(
    latents: Tensor,
    schedule: Schedule,
    predict: Predict,
    on_step: OnStep | None = None,
    solver: Solver | None = None,
) -> Tensor:
    """Carry ``latents`` from noise to the end of ``schedule``, by Euler's steps or those of a fresh ``solver``."""
    solver = solver or euler_steps(schedule)
    for step, timestep in enumerate(schedule.timesteps):
        velocity = predict(latents, step, float(timestep))
        latents = solver(latents, velocity, step)
        if on_step is not None:
            on_step(step + 1, latents)
    return latents


def told_in(dtype: torch.dtype, schedule: Schedule) -> Schedule:
    """``schedule`` as it is told to a model whose timesteps are of ``dtype``; steps are taken by the same sigmas."""
    return replace(schedule, timesteps=torch.from_numpy(schedule.timesteps).to(dtype).float().numpy())

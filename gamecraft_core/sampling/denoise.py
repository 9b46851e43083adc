"""The denoise loop: predict, step, tell. What is predicted and how is the caller's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gamecraft_core.sampling.solvers import euler
from gamecraft_core.timeline.schedule import Schedule

#: Velocity of latents at (step, timestep).
Predict = Callable[[Tensor, int, float], Tensor]
#: Told after every step: how many steps are done, and the latents as they are now.
OnStep = Callable[[int, Tensor], None]


def denoise(latents: Tensor, schedule: Schedule, predict: Predict, on_step: OnStep | None = None) -> Tensor:
    """Carry ``latents`` from noise to the end of ``schedule``."""
    changes = schedule.sigmas[1:] - schedule.sigmas[:-1]
    for step, (timestep, change) in enumerate(zip(schedule.timesteps, changes, strict=True)):
        velocity = predict(latents, step, float(timestep))
        latents = euler(latents, velocity, float(change))
        if on_step is not None:
            on_step(step + 1, latents)
    return latents

"""Solver, guidance and the loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gamecraft_core.base.errors import BadInput
from gamecraft_core.sampling.denoise import denoise, told_in
from gamecraft_core.sampling.guidance import combine, is_guided
from gamecraft_core.sampling.solvers import euler
from gamecraft_core.sampling.unipc import UniPc, update
from gamecraft_core.timeline.schedule import Schedule, make_schedule


def test_guidance() -> None:
    u, c = torch.tensor([1.0]), torch.tensor([3.0])
    assert combine([u, c], 2.0).item() == 5.0
    assert combine([c], 2.0) is c
    assert (is_guided(1.0), is_guided(1.5)) == (False, True)


def test_euler_keeps_the_type_and_adds_in_float32() -> None:
    x = torch.full((1,), 1.0, dtype=torch.float16)
    made = euler(x, torch.full((1,), 0.5, dtype=torch.bfloat16), -0.5)
    assert made.dtype == torch.float16
    assert made.item() == 0.75


def test_a_constant_velocity_is_followed_to_the_end() -> None:
    start, end = torch.randn(4), torch.randn(4)
    seen: list[tuple[int, float]] = []
    told: list[int] = []

    def predict(x: Tensor, step: int, timestep: float) -> Tensor:
        seen.append((step, timestep))
        return start - end

    made = denoise(start, make_schedule(7, 5.0), predict, lambda done, x: told.append(done))
    torch.testing.assert_close(made, end, atol=1e-6, rtol=0)
    assert [step for step, _ in seen] == list(range(7))
    assert [timestep for _, timestep in seen] == make_schedule(7, 5.0).timesteps.tolist()
    assert told == [1, 2, 3, 4, 5, 6, 7]


class Falling:
    """A flow whose clean latents are ``sin(3 * sigma)`` wherever it is, sampled by UniPC in ``steps`` of one ratio."""

    def __init__(self, steps: int) -> None:
        self.sigmas = np.append(np.geomspace(1, 0.2, steps), 0).astype(np.float32)
        self.calls: list[float] = []
        self.solver = UniPc(self.sigmas)
        schedule = Schedule(self.sigmas, self.sigmas[:-1] * np.float32(1000))
        self.result = float(denoise(torch.ones(1), schedule, self.velocity, solver=self.solver))

    def velocity(self, x: Tensor, step: int, timestep: float) -> Tensor:
        sigma = float(self.sigmas[step])
        self.calls.append(sigma)
        return (x - math.sin(3 * sigma)) / sigma

    @property
    def error(self) -> float:
        """Of the latents at the last sigma but 0, of which ``x / sigma`` is 1 + the integral of clean / sigma**2."""
        points = np.geomspace(0.2, 1, 20_001)
        exact = 0.2 * (1 + float(np.trapezoid(np.sin(3 * points) / points**2, points)))
        assert self.solver.latents is not None
        return abs(float(self.solver.latents) - exact)


def test_unipc_is_of_third_order() -> None:
    assert Falling(9).error > 6 * Falling(17).error > 0
    assert Falling(17).error < 2e-4


def test_unipc_calls_once_a_step_and_ends_at_what_was_predicted_to_be_clean() -> None:
    made = Falling(6)
    assert made.calls == made.sigmas[:-1].tolist()
    assert made.result == pytest.approx(math.sin(0.6), abs=1e-6)
    assert Falling(1).result == pytest.approx(math.sin(3), abs=1e-6)


def test_orders_ramp_up_and_one_step_has_none() -> None:
    sigmas = make_schedule(6, 3.0).sigmas
    assert [update(sigmas, step).order for step in range(5)] == [1, 2, 3, 3, 3]
    assert update(make_schedule(3, 3.0).sigmas, 1).order == 2
    assert (update(sigmas, 0).predictor, update(sigmas, 0).corrector) == ((), (0.5,))
    assert update(sigmas, 1).predictor == (0.5,)


def test_unipc_needs_sigmas_that_fall() -> None:
    with pytest.raises(BadInput, match="flow_reverse"):
        UniPc(make_schedule(4, 3.0, reverse=False).sigmas)


def test_a_model_is_told_timesteps_of_its_type() -> None:
    schedule = make_schedule(25, 7.0)
    told = told_in(torch.bfloat16, schedule)
    assert told.timesteps[:6].tolist() == [1000, 996, 988, 980, 972, 964]
    assert told.sigmas is schedule.sigmas
    np.testing.assert_array_equal(told_in(torch.float32, schedule).timesteps, schedule.timesteps)

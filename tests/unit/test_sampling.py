"""Solver, guidance and the loop."""

from __future__ import annotations

import torch
from torch import Tensor

from gamecraft_core.sampling.denoise import denoise
from gamecraft_core.sampling.guidance import combine, is_guided
from gamecraft_core.sampling.solvers import euler
from gamecraft_core.timeline.schedule import make_schedule


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

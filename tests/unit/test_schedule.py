"""The schedule: bits of torch's float32 arithmetic, made without torch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from gamecraft_core.base.errors import BadInput
from gamecraft_core.timeline.schedule import cached_steps, make_schedule, shift_of_tokens


@pytest.mark.parametrize("shift", [1.0, 3.3, 5.0, 7.0])
def test_every_step_count_has_torch_bits(shift: float) -> None:
    for steps in range(1, 1001):
        u = torch.linspace(1, 0, steps + 1)
        sigmas = shift * u / (1 + (shift - 1) * u)
        schedule = make_schedule(steps, shift)
        np.testing.assert_array_equal(schedule.sigmas, sigmas.numpy(), err_msg=f"{steps} steps")
        np.testing.assert_array_equal(schedule.timesteps, (sigmas[:-1] * 1000).numpy(), err_msg=f"{steps} steps")


@pytest.mark.parametrize("shift", [1.5, 3.0, 6.999999999999999])
def test_the_shift_of_odds_has_torch_bits(shift: float) -> None:
    for steps in range(1, 101):
        u = torch.linspace(1, 0, steps + 1)
        sigmas = make_schedule(steps, shift, by_odds=True).sigmas
        np.testing.assert_array_equal(sigmas, (shift / (shift + (1 / u - 1))).numpy(), err_msg=f"{steps} steps")
        np.testing.assert_allclose(sigmas, make_schedule(steps, shift).sigmas, atol=2e-7)


def test_shape_and_ends() -> None:
    schedule = make_schedule(8, 5.0)
    assert schedule.steps == 8
    assert schedule.sigmas.dtype == schedule.timesteps.dtype == np.float32
    assert (schedule.sigmas[0], schedule.sigmas[-1], schedule.timesteps[0]) == (1, 0, 1000)
    assert (np.diff(schedule.sigmas) < 0).all()


def test_the_shift_of_a_size() -> None:
    shifts = [shift_of_tokens(tokens) for tokens in range(4, 10_000)]
    assert all(low <= high for low, high in pairwise(shifts))
    assert [round(shift_of_tokens(tokens), 6) for tokens in (256, 4096)] == [1.648721, 3.158193]
    assert shift_of_tokens(8797) < 7
    assert round(shift_of_tokens(8798), 12) == round(shift_of_tokens(14_400), 12) == 7


def test_cached_steps_exist_for_50_only() -> None:
    assert sorted(cached_steps(50)) == [11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39]
    assert not cached_steps(8)


@pytest.mark.parametrize(("steps", "shift"), [(0, 5.0), (8, 0.0), (8, float("nan")), (8, float("inf"))])
def test_impossible_settings_are_refused(steps: int, shift: float) -> None:
    with pytest.raises(BadInput):
        make_schedule(steps, shift)

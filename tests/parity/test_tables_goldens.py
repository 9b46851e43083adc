"""Rotary tables, sigma tables and Euler steps against their goldens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gamecraft_core.base.preset import DitConfig
from gamecraft_core.dit.rope import rope_table, rotate_
from gamecraft_core.sampling.guidance import combine
from gamecraft_core.sampling.solvers import euler
from gamecraft_core.timeline.frames import latent_frames
from gamecraft_core.timeline.schedule import Schedule, make_schedule
from tests.parity.goldens import assert_close, cases, golden

ROPE_ATOL = 1e-5
EULER_ATOL = 1e-5
THETA: float = DitConfig.model_fields["rope_theta"].default


def as_channels(part: Tensor) -> Tensor:
    """[tokens, 1, pairs] to the stored [tokens, head_dim], where both channels of a pair have one entry."""
    return part[:, 0].repeat_interleave(2, dim=-1)


@pytest.mark.parametrize("case", cases("rope"))
def test_rope(case: dict[str, Any]) -> None:
    file, name = golden("rope"), case["name"]
    grid = (latent_frames(case["rope_len"]), case["pixel_h"] // 16, case["pixel_w"] // 16)
    assert list(grid) == case.get("grid", list(grid))
    table = rope_table(grid, tuple(case["dims"]), case.get("theta", THETA))
    assert len(table) == case.get("n_tokens", len(table))
    rows = file.tensors.get(f"{name}.idx", torch.arange(len(table)))
    assert_close(as_channels(table.real)[rows], file[f"{name}.cos"], ROPE_ATOL, name)
    assert_close(as_channels(table.imag)[rows], file[f"{name}.sin"], ROPE_ATOL, name)


@pytest.mark.parametrize("case", cases("rope"))
def test_rotation_turns_adjacent_pairs(case: dict[str, Any]) -> None:
    file, name = golden("rope"), case["name"]
    cos, sin = file[f"{name}.cos"][:, None], file[f"{name}.sin"][:, None]
    x = torch.randn(len(cos), 3, cos.shape[-1], generator=torch.Generator().manual_seed(1))
    swapped = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    expected = x * cos + swapped * sin
    rotate_(x, torch.complex(cos[..., ::2].contiguous(), sin[..., ::2].contiguous()))
    assert_close(x, expected, ROPE_ATOL, name)


def changes(schedule: Schedule) -> list[float]:
    return [float(change) for change in np.diff(schedule.sigmas)]


@pytest.mark.parametrize("case", cases("scheduler"))
def test_schedule_and_euler(case: dict[str, Any]) -> None:
    file, name = golden("scheduler"), case["name"]
    schedule = make_schedule(case["steps"], case["shift"])
    np.testing.assert_array_equal(schedule.sigmas, file[f"{name}.sigmas"].numpy())
    np.testing.assert_array_equal(schedule.timesteps, file[f"{name}.timesteps"].numpy())
    x = file[f"{name}.x0"]
    for step in range(case["euler_steps"]):
        x = euler(x, file[f"{name}.v{step}"], changes(schedule)[step])
        assert_close(x, file[f"{name}.x{step + 1}"], EULER_ATOL, f"{name} step {step}")


def test_half_precision_bookkeeping_is_exact() -> None:
    file = golden("scheduler")
    half = file.header["half"]
    schedule = make_schedule(half["steps"], half["shift"])
    velocity = combine([file["half.uncond"], file["half.cond"]], half["guidance"])
    latents = file["half.lat0"].clone()
    step = 0
    while f"half.lat{step + 1}" in file.tensors:
        latents[:, :, 1:] = euler(latents[:, :, 1:], velocity[:, :, 1:], changes(schedule)[step])
        step += 1
        assert torch.equal(latents, file[f"half.lat{step}"]), f"step {step}"
    assert step > 0

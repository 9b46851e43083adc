"""Sigma tables and Euler steps, in float32 and as a run in half precision keeps its books."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from gamecraft_core.sampling.guidance import combine
from gamecraft_core.sampling.solvers import euler
from gamecraft_core.timeline.schedule import Schedule, make_schedule
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

EULER = 1e-5
#: Names of tensors that need no comparison.
INPUTS = r".*\.(?:x0|v\d+)|half\.(?:cond|uncond|lat0)"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for case in file.header["cases"]:
        if file.names(f"{case['name']}."):
            yield Case(case["name"], partial(_steps, file, case))
    if "half" in file.header and file.names("half."):
        yield Case("half", partial(_half, file, file.header["half"]))


def _changes(schedule: Schedule) -> list[float]:
    return [float(change) for change in np.diff(schedule.sigmas)]


def _steps(file: Golden, case: dict[str, Any], check: Check) -> None:
    name, schedule = case["name"], make_schedule(case["steps"], case["shift"])
    check.tensor(file, f"{name}.sigmas", torch.from_numpy(schedule.sigmas), 0.0)
    check.tensor(file, f"{name}.timesteps", torch.from_numpy(schedule.timesteps), 0.0)
    if f"{name}.x0" not in file:
        return
    x = file.given(f"{name}.x0")
    for step, change in enumerate(_changes(schedule)[: case["euler_steps"]]):
        x = euler(x, file.given(f"{name}.v{step}"), change)
        check.tensor(file, f"{name}.x{step + 1}", x, EULER)


def _half(file: Golden, half: dict[str, Any], check: Check) -> None:
    """fp16 latents, bf16 predictions combined in bf16; the first latent frame is history and stands still."""
    velocity = combine([file.given("half.uncond"), file.given("half.cond")], half["guidance"])
    latents = file.given("half.lat0").clone()
    for step, change in zip(itertools.count(1), _changes(make_schedule(half["steps"], half["shift"])), strict=False):
        if f"half.lat{step}" not in file:
            break
        latents[:, :, 1:] = euler(latents[:, :, 1:], velocity[:, :, 1:], change)
        check.tensor(file, f"half.lat{step}", latents, 0.0)

"""Sigma, timestep and step tables, the flow switch on and off, and guidance as each precision is told it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from gamecraft_core.sampling.guidance import embedded
from gamecraft_core.timeline.schedule import make_schedule
from tests.parity.check import Case, Check
from tests.parity.golden import Folder

ATOL = 2e-7
#: Timesteps are a thousand times sigmas.
TIMESTEPS = 1e-4
_PRECISIONS = {"value_fp32": torch.float32, "value_bf16": torch.bfloat16, "value_fp16": torch.float16}


def cases(folder: Folder, name: str) -> Iterator[Case]:
    stored = folder.json(name)
    for one in stored["schedules"]:
        switch = "" if one["reverse"] else "_off"
        yield Case(f"scheduler/n{one['num_inference_steps']}_s{one['shift']:g}{switch}", partial(_table, one))
    if "guidance_embed" in stored:
        yield Case("scheduler/guidance_embed", partial(_guidance, stored["guidance_embed"]))


def _table(stored: dict[str, Any], check: Check) -> None:
    made = make_schedule(stored["num_inference_steps"], stored["shift"], reverse=stored["reverse"])
    tables = {
        "sigmas": (made.sigmas, ATOL),
        "timesteps": (made.timesteps, TIMESTEPS),
        "dt": (np.diff(made.sigmas), ATOL),
    }
    for name, (values, tolerance) in tables.items():
        if name in stored:
            check.close(name, torch.from_numpy(values), torch.tensor(stored[name]), tolerance)


def _guidance(stored: dict[str, Any], check: Check) -> None:
    for name, dtype in _PRECISIONS.items():
        if name in stored:
            check.equal(name, embedded(stored["embedded_guidance_scale"], dtype), stored[name])

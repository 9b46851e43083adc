"""The causal VAE: every stored encode and decode in the tiling that ``config.json`` says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from gamecraft_core.vae.model import CausalVae
from tests.parity.cases.hunyuan.models import config, vae
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

ATOL = 3e-5
#: Names of tensors that need no comparison.
INPUTS = r"\w+\.[zx]"
#: What a case starts from and what it gives.
_DECODE, _ENCODE = ("z", "out"), ("x", "moments")


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for given, made in (_DECODE, _ENCODE):
        for name in file.names():
            case, _, part = name.rpartition(".")
            if part == given:
                yield Case(case, partial(_run, folder, file, case, given, made))


def _run(folder: Folder, file: Golden, case: str, given: str, made: str, check: Check) -> None:
    value, model = file.given(f"{case}.{given}"), _tiled(folder, case)
    result: Tensor = model.decode(value) if given == "z" else torch.cat(model.encode(value), dim=1)
    check.tensor(file, f"{case}.{made}", result, ATOL)


def _tiled(folder: Folder, case: str) -> CausalVae:
    model, described = vae(folder), config(folder)["vae_cases"][case]
    space, time = described["spatial_tiling"], described["temporal_tiling"]
    model.tiling = dataclasses.replace(model.tiling, space=space, time=time)
    return model

"""Rotary tables, and the rotation that they drive."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gamecraft_core.base.preset import DitConfig
from gamecraft_core.dit.rope import rope_table, rotate_
from gamecraft_core.timeline.frames import latent_frames
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

ATOL = 1e-5
#: Names of tensors that need no comparison.
INPUTS = r".*\.idx"
#: Pixels of a token, each way.
TOKEN_PIXELS = 16
THETA: float = DitConfig.model_fields["rope_theta"].default


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for case in file.header["cases"]:
        if file.names(f"{case['name']}."):
            yield Case(case["name"], partial(_table, file, case))
            yield Case(f"{case['name']}.rotation", partial(_rotation, file, case["name"]))


def as_stored(table: Tensor) -> tuple[Tensor, Tensor]:
    """Complex [tokens, 1, pairs] to the stored (cos, sin) [tokens, head_dim]: both channels of a pair are alike."""
    pairs = table[:, 0]
    return pairs.real.repeat_interleave(2, dim=-1), pairs.imag.repeat_interleave(2, dim=-1)


def _table(file: Golden, case: dict[str, Any], check: Check) -> None:
    name = case["name"]
    grid = (latent_frames(case["rope_len"]), case["pixel_h"] // TOKEN_PIXELS, case["pixel_w"] // TOKEN_PIXELS)
    check.equal("grid", list(grid), case.get("grid", list(grid)))
    table = rope_table(grid, tuple(case["dims"]), case.get("theta", THETA))
    check.equal("tokens", len(table), case.get("n_tokens", len(table)))
    rows = file.given(f"{name}.idx") if f"{name}.idx" in file else torch.arange(len(table))
    cos, sin = as_stored(table[rows])
    check.tensor(file, f"{name}.cos", cos, ATOL)
    check.tensor(file, f"{name}.sin", sin, ATOL)


def _rotation(file: Golden, name: str, check: Check) -> None:
    """With the stored table: channels turn in adjacent pairs."""
    cos, sin = file.given(f"{name}.cos")[:, None], file.given(f"{name}.sin")[:, None]
    x = torch.randn(len(cos), 3, cos.shape[-1], generator=torch.Generator().manual_seed(1))
    swapped = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    turned = x * cos + swapped * sin
    rotate_(x, torch.complex(cos[..., ::2].contiguous(), sin[..., ::2].contiguous()))
    check.close("rotated", x, turned, ATOL)

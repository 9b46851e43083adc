"""Seeded random weights, for tests and demos that have no checkpoint.

Each tensor is drawn by its own name and the seed with numpy's Philox, so neither the order of layers nor the machine
nor the process matters. Layers that training starts at zero are drawn too: no branch is silent. Scales keep a
signal's size through depth: unit variance over the inputs of a matrix, norms near one, small biases. Kernels lean
towards a blur, so that a random VAE shows soft coloured shapes rather than static.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor, nn

from gamecraft_core.weights.fill import Device, allocate

_SMALL = 0.1
_ROUGH = 0.3


def fill_random(module: nn.Module, seed: int, device: Device = None) -> None:
    """Give ``module`` (the meta device included) drawn weights in its own dtypes; see ``allocate`` for ``device``."""
    tables = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    for name, target in allocate(module, device).items():
        target.copy_(drawn(name, tuple(target.shape), seed, is_table=name in tables))


def drawn(name: str, shape: tuple[int, ...], seed: int, is_table: bool = False) -> Tensor:
    """The float32 tensor that ``name`` stands for under ``seed``. Rows of a look-up table have unit variance."""
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
    values = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32).reshape(shape))
    if len(shape) < 2:
        return values * _SMALL if name.endswith("bias") else 1.0 + values * _SMALL
    if is_table:
        return values
    values /= math.sqrt(math.prod(shape[1:]))
    if len(shape) == 5 and min(shape[2:]) >= 3:
        mix = values.sum((2, 3, 4), keepdim=True)  # one unit-variance weight for each pair of channels
        return mix * _blur(shape[2:]) + _ROUGH * values
    return values


def _blur(taps: tuple[int, ...]) -> Tensor:
    """A separable ramp up to the middle and down again, of sum one."""
    whole = torch.ones(())
    for count in taps:
        line = (torch.arange(count) + 0.5 - count / 2).abs().neg() + (count + 1) / 2
        whole = whole[..., None] * (line / line.sum())
    return whole

"""The fp8 option's linear layer: bytes and scales exact, the product within one bfloat16 unit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from gamecraft_core.dit.layers import Linear
from gamecraft_core.weights.quantise import Fp8Linear, quantise
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

PRODUCT_UNITS = 1.0
UNQUANTISED = 1e-5
_MANTISSA_BITS = 7
#: Names of tensors that need no comparison.
INPUTS = r"weight|bias|x"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    yield Case("bytes", partial(_bytes, file))
    yield Case("product", partial(_product, file))
    if "out_unquantised" in file:
        yield Case("unquantised", partial(_unquantised, file))


def _bytes(file: Golden, check: Check) -> None:
    for name in ("weight", "x"):
        values, scale = quantise(file.given(name))
        check.tensor(file, f"q{name}", values.view(torch.uint8), 0.0)
        check.tensor(file, f"{name}_scale", scale, 0.0)


def _product(file: Golden, check: Check) -> None:
    """The product's error is told in units of the stored values' last bfloat16 place."""
    weight, bias, x = file.given("weight"), file.given("bias"), file.given("x")
    layer = Fp8Linear(weight.shape[1], weight.shape[0], bias, weight.device)
    values, scale = quantise(weight)
    layer.weight.copy_(values)
    layer.weight_scale.copy_(scale)
    check.equal("type", layer(x).dtype, torch.bfloat16)
    stored = file.expected("out").double()
    check.close("out", layer(x).double() / _unit(stored), stored / _unit(stored), PRODUCT_UNITS)


def _unit(stored: Tensor) -> Tensor:
    _, exponent = torch.frexp(stored)
    return torch.ldexp(torch.ones_like(stored), exponent - 1 - _MANTISSA_BITS)


def _unquantised(file: Golden, check: Check) -> None:
    weight, bias = file.given("weight").float(), file.given("bias").float()
    layer = Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    with torch.inference_mode():
        check.tensor(file, "out_unquantised", layer(file.given("x").float()), UNQUANTISED)

"""fp8 on units that have it: the device's product against the emulation that the goldens hold for."""

from __future__ import annotations

import pytest
import torch

from gamecraft_core.weights.quantise import Fp8Linear, has_fp8, quantise, quantise_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and has_fp8(torch.device("cuda"))), reason="needs a GPU with fp8 units"
    ),
]


def test_bytes_and_scales_are_those_of_the_cpu() -> None:
    x = torch.randn(333, 512).bfloat16() * 7
    values, scale = quantise(x)
    on_gpu, gpu_scale = quantise(x.cuda())
    assert torch.equal(on_gpu.view(torch.uint8).cpu(), values.view(torch.uint8))
    assert torch.equal(gpu_scale.cpu(), scale)


@pytest.mark.parametrize("tokens", [1, 60, 333])
def test_the_product_is_the_emulated_one_within_a_unit(tokens: int) -> None:
    torch.manual_seed(4)
    model = torch.nn.ModuleDict({"block": torch.nn.ModuleDict({"fc": torch.nn.Linear(512, 256).bfloat16()})})
    quantise_model(model)
    layer = model.get_submodule("block.fc")
    assert isinstance(layer, Fp8Linear)
    x = torch.randn(tokens, 512)
    emulated = layer(x)
    real = layer.cuda()(x.cuda()).cpu()
    torch.testing.assert_close(real, emulated, rtol=2**-7, atol=2**-7)
    assert torch.equal(layer.part(x.cuda(), 16, 48).cpu(), real[:, 16:48])

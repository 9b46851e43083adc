"""fp8: bytes and scales against arithmetic done by hand, the layer, whole models, files, and unfit devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.layers import Linear
from gamecraft_core.families.gamecraft import GameCraft, GameCraftDenoiser, build_model
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights import loader, quantise
from gamecraft_core.weights.quantise import FP8, Fp8Linear, is_quantised, quantise_model, require_fp8
from gamecraft_core.weights.readers import open_dit
from tests.fakes.tiny_model import image_history, order, text, tiny_model, tiny_preset

Floats = npt.NDArray[np.float64]

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_heads": 4,
    "rope_dim_list": (4, 4, 8),
    "text_states_dim": 20,
    "text_states_dim_2": 12,
}


def _preset(**runtime: Any) -> Preset:
    preset = tiny_preset(**SIZES)
    return preset.model_copy(update={"runtime": preset.runtime.model_copy(update=runtime)})


def _files(preset: Preset, path: Path) -> Preset:
    weights = preset.weights.model_copy(update={"kind": "files", "dit": str(path), "vae": str(path)})
    return preset.model_copy(update={"weights": weights})


def _bf16(values: Floats) -> Floats:
    """Round to the nearest bfloat16, ties to even, by the bits of float32."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def _e4m3(values: Floats) -> npt.NDArray[np.uint8]:
    """The nearest of all finite e4m3 values, ties to the even code."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    table = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10.0), mantissa * 2.0**-9)
    distance = np.abs(np.abs(values)[..., None] - table)
    odd_codes_lose_ties = distance + np.where(codes % 2, 1e-12, 0)
    nearest = odd_codes_lose_ties.argmin(-1)
    return np.asarray(nearest + np.where(np.signbit(values), 128, 0), np.uint8)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 300.0])
def test_bytes_and_scale_follow_the_published_steps(spread: float) -> None:
    x = (torch.randn(37, 53, generator=torch.Generator().manual_seed(3)) * spread).bfloat16()
    exact = x.double().numpy()
    factor = _bf16(_bf16(1 / np.abs(exact).max(keepdims=True)) * 448)
    values, scale = quantise.quantise(x)
    assert scale.dtype == torch.float32
    assert scale.numpy() == np.float32(1) / factor.astype(np.float32).reshape(1)
    assert (values.view(torch.uint8).numpy() == _e4m3(_bf16(exact * factor))).all()


def test_nothing_and_zeros_and_what_is_not_a_number() -> None:
    values, scale = quantise.quantise(torch.zeros(2, 3))
    assert not values.float().any()
    assert torch.isfinite(scale).all()
    assert quantise.quantise(torch.zeros(0, 3))[0].shape == (0, 3)
    values, scale = quantise.quantise(torch.tensor([1.0, float("nan")]))
    assert (values.float() * scale).isnan().any(), "a broken activation must not become a number"


def _layers() -> tuple[Linear, Fp8Linear]:
    torch.manual_seed(5)
    exact = Linear(32, 48).bfloat16().requires_grad_(False)
    model = torch.nn.ModuleDict({"block": torch.nn.ModuleDict({"fc": exact})})
    assert quantise_model(model) == ["block.fc"]
    layer = model.get_submodule("block.fc")
    assert isinstance(layer, Fp8Linear)
    return exact, layer


def test_the_layer_multiplies_what_the_bytes_say() -> None:
    exact, layer = _layers()
    x = torch.randn(3, 7, 32)
    values, scale = quantise.quantise(x)
    product = (values.double() * scale.double()) @ (layer.weight.double() * layer.weight_scale.double()).T
    wanted = product.bfloat16() + exact.bias
    made = layer(x)
    assert made.shape == (3, 7, 48)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made, wanted, rtol=2**-7, atol=2**-9)
    assert 1e-3 < float((made.float() - exact(x).float()).abs().mean()) < 0.05


def test_parts_of_the_layer_are_slices_of_the_whole() -> None:
    _, layer = _layers()
    x = torch.randn(7, 32)
    assert torch.equal(layer.part(x, 8, 24), layer(x)[:, 8:24])
    assert torch.equal(layer.part(x, 40), layer(x)[:, 40:])
    torch.testing.assert_close(layer.gelu(x, 40), torch.nn.functional.gelu(layer(x)[:, 40:], approximate="tanh"))
    assert layer(x[:0]).shape == (0, 48)


@pytest.mark.parametrize(
    ("path", "converted"),
    [
        ("double_blocks.3.img_attn_qkv", True),
        ("txt_in.individual_token_refiner.blocks.0.mlp.fc1", True),
        ("single_blocks.0.linear2", True),
        ("double_blocks.3.img_mod.linear", False),
        ("single_blocks.0.modulation.linear", False),
        ("txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1", False),
        ("final_layer.linear", False),
        ("time_in.mlp.0", False),
    ],
)
def test_which_layers_the_option_names(path: str, converted: bool) -> None:
    assert is_quantised(path) == converted


def _latents(preset: Preset, model: GameCraft) -> Floats:
    made = GameCraftDenoiser(preset, model, Solo()).denoise(order(guidance=1.0), text(), image_history())
    return made.astype(np.float64)


def test_a_whole_model_comes_close_to_the_exact_one() -> None:
    preset = _preset()
    exact, model = tiny_model(preset), tiny_model(preset)
    names = quantise_model(model)
    state = model.state_dict()
    for name in names:
        assert state[f"{name}.weight"].dtype == FP8
        assert state[f"{name}.weight_scale"].shape == (1,)
    assert len(names) == 8 + 2 * 8 + 2 * 2
    assert quantise_model(model) == names, "a second time changes nothing"
    wanted, made = _latents(preset, exact), _latents(preset, model)
    error = np.abs(made - wanted).mean() / wanted.std()
    assert 1e-4 < error < 0.1


def _saved(model: torch.nn.Module, path: Path) -> dict[str, Tensor]:
    state = dict(model.state_dict())
    save_file(state, path)
    return state


def _loaded(preset: Preset) -> dict[str, Tensor]:
    model = build_model(preset, "meta", torch.bfloat16)
    loader.load_dit(preset, model, "cpu")
    return dict(model.state_dict())


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value.dtype == second[key].dtype and torch.equal(value.view(torch.uint8), second[key].view(torch.uint8))
        for key, value in first.items()
    )


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader takes the CPU for a device with fp8 units; products are emulated."""
    monkeypatch.setattr(loader, "has_fp8", lambda device: True)


@pytest.mark.usefixtures("fit")
def test_files_in_either_type_give_the_same_fp8_model(tmp_path: Path) -> None:
    model = tiny_model(_preset()).bfloat16()
    model.camera_net.float()
    model.final_layer.linear.float()
    _saved(model, tmp_path / "exact.safetensors")
    quantise_model(model)
    wanted = _saved(model, tmp_path / "fp8.safetensors")
    for name in ("exact", "fp8"):
        assert _same(_loaded(_files(_preset(fp8=True), tmp_path / f"{name}.safetensors")), wanted), name


@pytest.mark.usefixtures("fit")
def test_random_weights_follow_the_option() -> None:
    state = _loaded(_preset(fp8=True))
    assert state["double_blocks.0.img_mlp.fc1.weight"].dtype == FP8
    assert state["double_blocks.0.img_mod.linear.weight"].dtype == torch.bfloat16


def _fp8_file(tmp_path: Path) -> Path:
    model = tiny_model(_preset()).bfloat16()
    quantise_model(model)
    path = tmp_path / "fp8.safetensors"
    _saved(model, path)
    return path


@pytest.mark.parametrize("option", [True, False])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_an_fp8_file_on_an_unfit_device_is_named_with_its_key(tmp_path: Path, option: bool, kind: str) -> None:
    path = _fp8_file(tmp_path)
    if kind == "pt":
        torch.save({"module": load_file(path)}, tmp_path / "fp8.pt")
        path = tmp_path / "fp8.pt"
    model = build_model(_preset(), "meta", torch.bfloat16)
    with pytest.raises(WeightsError) as caught:
        loader.load_dit(_files(_preset(fp8=option), path), model, "cpu")
    assert f"{path}: " in str(caught.value)
    assert "img_attn_proj.weight is stored in fp8, and this CPU has no fp8 units" in str(caught.value)
    assert "bfloat16" in caught.value.remedy
    assert all(parameter.is_meta for parameter in model.parameters())


def test_an_fp8_file_without_the_option_says_which_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "has_fp8", lambda device: True)
    with pytest.raises(WeightsError, match=r"is stored in fp8 \(set runtime\.fp8=true"):
        _loaded(_files(_preset(), _fp8_file(tmp_path)))


def test_an_fp8_vae_is_refused(tmp_path: Path) -> None:
    preset = _preset(vae_dtype="float32")
    preset = preset.model_copy(update={"vae": preset.vae.model_copy(update={"norm_num_groups": 4})})
    with torch.device("meta"):
        vae = CausalVae(preset.vae)
    states = {key: torch.zeros(value.shape).to(FP8) for key, value in vae.state_dict().items()}
    save_file(states, tmp_path / "vae.safetensors")
    with pytest.raises(WeightsError, match=r"weights\.vae: .*vae\.safetensors: .* is stored in fp8"):
        loader.load_vae(_files(preset, tmp_path / "vae.safetensors"), vae)


def test_the_option_on_an_unfit_device_is_refused_with_the_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"runtime\.fp8: .*this CPU has no fp8 units"):
        _loaded(_preset(fp8=True))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    with pytest.raises(WeightsError, match=r"A100-SXM4-80GB has no fp8 units \(use bfloat16.*int8 attention"):
        require_fp8(torch.device("cuda"), "fp8 weights are asked for", "runtime.fp8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    require_fp8(torch.device("cuda"), "fp8 weights are asked for", "runtime.fp8")


def test_names_are_found_in_a_checkpoint_as_in_a_model(tmp_path: Path) -> None:
    model = tiny_model(_preset())
    _saved(model, tmp_path / "plain.safetensors")
    assert set(quantise.linear_names(open_dit(str(tmp_path)))) == set(quantise_model(model))

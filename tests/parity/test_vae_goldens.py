"""The causal VAE against its goldens: every case and mode, and as the chunk loop uses it."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gamecraft_core.base.preset import Preset, VaeConfig
from gamecraft_core.vae import codec as codec_module
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.loader import load_vae
from tests.parity.goldens import FOLDER, assert_close, golden, header, names, preset

_ATOL = 5e-5
_VAES = names("vae_")
_RUNS = [name for name in names("pipeline_") if "chunks" in header(name)] or ["pipeline_nocfg"]
_STARTS = [name for name in names("pipeline_") if header(name) and "posterior.mean" in golden(name).tensors]


def _label(case: dict[str, Any]) -> str:
    return f"{case['op']}-{case['mode']}-{case['input']}"


_CASES = [
    pytest.param(name, case, id=f"{name}-{_label(case)}") for name in _VAES for case in header(name).get("cases", [])
]
_CHUNKS = [
    pytest.param(name, index, id=f"{name}-{index}")
    for name in _RUNS
    for index in range(len(header(name).get("chunks", [None])))
]


def _config(values: dict[str, Any]) -> VaeConfig:
    return VaeConfig.model_validate({key: value for key, value in values.items() if key in VaeConfig.model_fields})


@cache
def _vae(name: str) -> CausalVae:
    file = golden(name)
    vae = CausalVae(_config(file.header["config"]))
    vae.load_state_dict(file.state_dict())
    return vae


@cache
def _codec(weights: str) -> VaeCodec:
    """The codec on the VAE stored in the official layout under ``weights``, read by the product's own reader."""
    described = json.loads((FOLDER / f"{weights}.json").read_text())
    folder = FOLDER / weights / described["paths"]["vae"]
    config = _config(json.loads((folder / "config.json").read_text()))
    values = preset(described["dit"]).model_dump()
    values |= {"vae": config, "weights": {"kind": "files", "dit": "unused", "vae": str(folder)}}
    values["runtime"]["vae_dtype"] = "float32"
    settings = Preset.model_validate(values)
    with torch.device("meta"):
        vae = CausalVae(config)
    load_vae(settings, vae)
    return VaeCodec(settings, vae, "cpu")


def _u8(pixels: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[3, ...] as the codec takes it, channels last."""
    return np.ascontiguousarray(pixels.movedim(0, -1).numpy())


@pytest.mark.parametrize(("name", "case"), _CASES)
def test_vae(name: str, case: dict[str, Any]) -> None:
    file, mode = golden(name), case["mode"]
    vae = _vae(name)
    vae.tiling = dataclasses.replace(vae.tiling, space=mode in ("spatial", "both"), time=mode in ("temporal", "both"))
    if case["op"] == "encode":
        stored = f"enc.{mode}.{case['input']}"
        frames = int(case["input"].removeprefix("f"))
        mean, logvar = vae.encode(file["video_u8"][:, :, :frames].float() / 127.5 - 1)
        assert list(mean.shape) == case["out"]
        assert_close(mean, file[f"{stored}.mean"], _ATOL, "mean")
        assert_close(logvar, file[f"{stored}.logvar"], _ATOL, "logvar")
    else:
        stored = f"dec.{mode}.{case['input']}"
        z = file["z"] if case["input"] == "full" else file["z"][:, :, : int(case["input"].removeprefix("t"))]
        out = vae.decode(z)
        assert list(out.shape) == case["out"]
        assert_close(out[:, :, case["frames"]], file[f"{stored}.frames"], _ATOL, "frames")
        assert_close(out.mean((1, 3, 4)), file[f"{stored}.frame_mean"], _ATOL, "mean of frames")
        assert_close(out.abs().mean((1, 3, 4)), file[f"{stored}.frame_absmean"], _ATOL, "absolute mean of frames")


@pytest.mark.parametrize("name", _VAES)
def test_tile_sizes(name: str) -> None:
    tiling, stored = _vae(name).tiling, golden(name).header["tile"]
    assert tiling.pixels == stored["tile_sample_min_size"]
    assert tiling.latents == stored["tile_latent_min_size"]
    assert tiling.pixel_frames == stored["tile_sample_min_tsize"]
    assert tiling.latent_frames == stored["tile_latent_min_tsize"]


@pytest.mark.parametrize("name", _STARTS or ["pipeline_inputs"])
def test_start_posterior(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = golden(name)
    codec, eps = _codec(file.header["weights"]), file["posterior.eps"]
    is_clip = "video_u8" in file.tensors
    pixels = _u8(file["video_u8"]) if is_clip else _u8(file["image_u8"])[None]
    mean, logvar = codec.moments(pixels)
    assert_close(mean, file["posterior.mean"][0], _ATOL, "mean")
    assert_close(logvar, file["posterior.logvar"][0], _ATOL, "logvar")

    def stored_noise(seed: int, index: int, purpose: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        assert purpose == ("clip_posterior" if is_clip else "image_posterior")
        return eps[0].numpy().reshape(shape)

    monkeypatch.setattr(codec_module, "draw", stored_noise)
    latents = codec.encode_clip(pixels, seed=0) if is_clip else codec.encode_image(pixels[0], seed=0)
    expected = file["chunk0.in.last_latents"] if is_clip else file["ref_latents"]
    assert_close(torch.from_numpy(latents), expected[0], _ATOL, "history latents")
    if is_clip:
        first, _ = codec.moments(pixels[:1])
        assert_close(first, file["ref_posterior.mean"][0], _ATOL, "mean of the first frame alone")


@pytest.mark.parametrize(("name", "index"), _CHUNKS)
def test_chunk_frames(name: str, index: int) -> None:
    file = golden(name)
    chunk = file.header["chunks"][index]
    new = chunk["latent_frames"] - 1 if chunk["is_image"] else chunk["latent_frames"] // 2
    latents = file[f"chunk{index}.denoised_latents"][0, :, -new:].numpy()
    codec = _codec(file.header["weights"])
    frames = codec.decode_float(latents)
    assert_close(frames[:, chunk["frames"]], file[f"chunk{index}.frames"][0], _ATOL, "frames")
    if f"chunk{index}.video_u8" in file.tensors:
        written = _u8(file[f"chunk{index}.video_u8"][0]).astype(int)
        assert np.abs(codec.decode(latents).astype(int) - written).max() <= 1


def test_official_keys_at_the_real_size() -> None:
    path = FOLDER / "keymap_vae.json"
    if not path.exists():
        pytest.skip(f"golden {path} is absent")
    stored = json.loads(path.read_text())
    with torch.device("meta"):
        vae = CausalVae(_config(stored["config"]))
    assert {key: list(value.shape) for key, value in vae.state_dict().items()} == stored["keys"]
    assert len(stored["keys"]) == stored["n_keys"]
    assert sum(value.numel() for value in vae.parameters()) == stored["n_params"]

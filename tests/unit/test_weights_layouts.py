"""HunyuanVideo's published layouts: the official file, diffusers' shards, the fp8 file with its map."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.families.hunyuan_video import HunyuanVideo, build_model
from gamecraft_core.weights.diffusers import MODULES, diffusers_keys, diffusers_source
from gamecraft_core.weights.fill import fill
from gamecraft_core.weights.quantise import FP8
from gamecraft_core.weights.readers import detect_kind, open_dit
from gamecraft_core.weights.source import Entry, Source
from tests.fakes.tiny_video import video_model, video_preset

PRESET = video_preset()
STATES = video_model(PRESET).state_dict()
HIDDEN = PRESET.dit.hidden_size


def _loaded(path: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    model: HunyuanVideo = build_model(PRESET, "meta", dtype)
    fill(model, open_dit(str(path)), "weights.dit")
    return model.state_dict()


def _diffusers_tensors() -> dict[str, Tensor]:
    entries = {key: Entry(tuple(value.shape), value.dtype, "memory") for key, value in STATES.items()}
    source = diffusers_source(Source("memory", entries, STATES.__getitem__))
    tensors = {key: source.read(key).contiguous() for key in source.entries}
    assert all(tuple(value.shape) == source.entries[key].shape for key, value in tensors.items())
    return tensors


def _write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Three shards, so that parts of one fused matrix lie in several, and an index."""
    keys = sorted(tensors)
    names = {key: f"diffusion_pytorch_model-{place % 3 + 1:05d}-of-00003.safetensors" for place, key in enumerate(keys)}
    for name in sorted(set(names.values())):
        save_file({key: tensors[key] for key in keys if names[key] == name}, folder / name)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))


def _same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[key], value) for key, value in wanted.items())


def test_diffusers_shards_give_the_official_tensors(tmp_path: Path) -> None:
    _write(tmp_path, _diffusers_tensors())
    assert detect_kind(str(tmp_path)) == "dit"
    assert _same(_loaded(tmp_path), STATES)


def test_what_lies_where_in_the_diffusers_layout() -> None:
    tensors = _diffusers_tensors()
    fused = STATES["single_blocks.1.linear1.weight"]
    parts = [tensors[key] for key in diffusers_keys("single_blocks.1.linear1.weight")]
    assert [len(part) for part in parts] == [HIDDEN, HIDDEN, HIDDEN, 4 * HIDDEN]
    assert torch.equal(parts[2], fused[2 * HIDDEN : 3 * HIDDEN])
    shift, scale = STATES["final_layer.adaLN_modulation.1.bias"].chunk(2)
    assert torch.equal(tensors["norm_out.linear.bias"], torch.cat([scale, shift]))
    value = tensors["transformer_blocks.0.attn.add_v_proj.bias"]
    assert torch.equal(value, STATES["double_blocks.0.txt_attn_qkv.bias"][2 * HIDDEN :])


def test_no_two_modules_share_a_name() -> None:
    others = [part for parts in MODULES.values() for part in parts]
    assert len(others) == len(set(others))


def test_a_missing_part_and_a_foreign_key_are_named(tmp_path: Path) -> None:
    tensors = _diffusers_tensors()
    lost = tensors.pop("transformer_blocks.1.attn.to_k.weight")
    _write(tmp_path, tensors)
    with pytest.raises(WeightsError, match=r"lacks transformer_blocks\.1\.attn\.to_k\.weight, .*img_attn_qkv"):
        _loaded(tmp_path)
    _write(tmp_path, tensors | {"transformer_blocks.1.attn.to_k.weight": lost, "image_embedder.x": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"1 unexpected: image_embedder\.x"):
        _loaded(tmp_path)


def _fp8_file(folder: Path) -> dict[str, Tensor]:
    """An fp8 checkpoint of the published form in ``folder``; returns its scales."""
    scales: dict[str, Tensor] = {}
    stored: dict[str, Tensor] = {}
    for key, value in STATES.items():
        module = key.removesuffix(".weight")
        if module != key and value.dim() == 2 and module.startswith(("double_blocks.", "single_blocks.")):
            scales[module] = value.abs().max() / 448.0
            stored[key] = (value / scales[module]).to(FP8)
        else:
            stored[key] = value.to(torch.bfloat16)
    torch.save({"module": stored}, folder / "model_states_fp8.pt")
    torch.save(scales, folder / "model_states_fp8_map.pt")
    return scales


def test_an_fp8_file_is_expanded_by_its_map(tmp_path: Path) -> None:
    scales = _fp8_file(tmp_path)
    found = _loaded(tmp_path / "model_states_fp8.pt", torch.bfloat16)
    for key, value in STATES.items():
        module = key.removesuffix(".weight")
        if key != module and module in scales:
            exact = (value / scales[module]).to(FP8).to(torch.bfloat16) * scales[module].to(torch.bfloat16)
            assert torch.equal(found[key], exact)
            assert not torch.equal(found[key], value.to(torch.bfloat16))
            torch.testing.assert_close(found[key].float(), value, atol=float(scales[module]) * 20, rtol=0)
        else:
            assert torch.equal(found[key], value.to(torch.bfloat16))


def test_an_fp8_file_whose_map_does_not_fit_is_refused(tmp_path: Path) -> None:
    scales = _fp8_file(tmp_path)
    file, map_file = tmp_path / "model_states_fp8.pt", tmp_path / "model_states_fp8_map.pt"
    lost = min(scales)
    torch.save({key: value for key, value in scales.items() if key != lost}, map_file)
    with pytest.raises(WeightsError, match=rf"no scale for {lost}\.weight"):
        open_dit(str(file))
    torch.save({**scales, "note": "x"}, map_file)
    with pytest.raises(WeightsError, match="'note' is no scale"):
        open_dit(str(file))
    map_file.unlink()
    with pytest.raises(WeightsError, match=r"is stored in fp8"):
        _loaded(file, torch.bfloat16)

"""Readers of checkpoints, the report on keys, seeded weights and the fingerprint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.preset import Preset, VisionConfig
from gamecraft_core.weights.files import open_safetensors
from gamecraft_core.weights.fill import allocate, fill
from gamecraft_core.weights.fingerprint import fingerprint
from gamecraft_core.weights.loader import load_dit, load_vae
from gamecraft_core.weights.random_init import drawn, fill_random
from gamecraft_core.weights.readers import detect_kind, open_dit, open_vae
from gamecraft_core.weights.source import Source
from jobs.config import load_preset


def _net(device: str = "meta") -> nn.Sequential:
    with torch.device(device):
        return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Embedding(5, 3))


def _states() -> dict[str, torch.Tensor]:
    return {key: torch.randn(value.shape) for key, value in _net().state_dict().items()}


def _preset(**weights: Any) -> Preset:
    preset = load_preset("tiny-gamecraft")
    return preset.model_copy(update={"weights": preset.weights.model_copy(update=weights)})


def _same(module: nn.Module, states: dict[str, torch.Tensor]) -> bool:
    found = module.state_dict()
    return found.keys() == states.keys() and all(torch.equal(found[key], value) for key, value in states.items())


@pytest.mark.parametrize("selector", ["module", "ema", None])
def test_official_transformer_file(tmp_path: Path, selector: str | None) -> None:
    states, net = _states(), _net()
    torch.save({selector: states, "global_steps": 3} if selector else states, tmp_path / "mp_rank_00_model_states.pt")
    (tmp_path / "mp_rank_00_model_states_distill.pt").touch()  # is only read when it is named
    for path in (tmp_path, tmp_path / "mp_rank_00_model_states.pt"):
        load_dit(_preset(kind="files", dit=str(path), vae="unused"), net)
        assert _same(net, states)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("prefix", ["vae.", ""])
def test_official_vae_file(tmp_path: Path, wrapped: bool, prefix: str) -> None:
    states, net = _states(), _net()
    stored = {prefix + key: value for key, value in states.items()}
    if prefix:
        stored["loss.discriminator"] = torch.ones(2)
    torch.save({"state_dict": stored} if wrapped else stored, tmp_path / "pytorch_model.pt")
    load_vae(_preset(kind="files", dit="unused", vae=str(tmp_path)), net)
    assert _same(net, states)


@pytest.mark.parametrize("layout", ["file", "folder", "shards"])
def test_safetensors(tmp_path: Path, layout: str) -> None:
    states, net = _states(), _net()
    if layout == "shards":
        keys = sorted(states)
        parts = {"a-1.safetensors": keys[:2], "a-2.safetensors": keys[2:]}
        for name, part in parts.items():
            save_file({key: states[key] for key in part}, tmp_path / name)
        index = {key: name for name, part in parts.items() for key in part}
        (tmp_path / "a.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    else:
        save_file(states, tmp_path / "only.safetensors")
    path = tmp_path / "only.safetensors" if layout == "file" else tmp_path
    load_dit(_preset(kind="files", dit=str(path), vae="unused"), net)
    assert _same(net, states)


def test_a_filled_module_owns_its_memory_and_keeps_its_types(tmp_path: Path) -> None:
    file = tmp_path / "x_model_states.pt"
    states = {key: value.bfloat16() for key, value in _states().items()}
    torch.save({"module": states}, file)
    net = _net()
    net[1].bfloat16()
    fill(net, open_dit(str(tmp_path)), "weights.dit")
    kept = {key: value.clone() for key, value in net.state_dict().items()}
    with file.open("r+b") as stream:
        stream.write(bytes(os.path.getsize(file)))
    assert _same(net, kept)
    assert net[0].weight.dtype == torch.float32
    assert net[1].weight.dtype == torch.bfloat16
    assert all(parameter.data_ptr() % 64 == 0 for parameter in net.parameters())
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_misfits_are_reported_together_before_anything_is_copied(tmp_path: Path) -> None:
    states = _states()
    states["9.extra"] = states.pop("0.bias")
    states["1.weight"] = torch.ones(7)
    torch.save(states, tmp_path / "x_model_states.pt")
    net = _net()
    with pytest.raises(WeightsError) as caught:
        fill(net, open_dit(str(tmp_path)), "weights.dit")
    message = str(caught.value)
    assert message.startswith(f"weights.dit: {tmp_path}/x_model_states.pt does not fit")
    for part in ("1 missing: 0.bias", "1 unexpected: 9.extra", "1 misshapen: 1.weight (file [7], model [3])"):
        assert part in message
    assert all(parameter.is_meta for parameter in net.parameters())


def test_long_reports_stay_readable() -> None:
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(40)))
    with pytest.raises(WeightsError, match=r"80 missing: .* and 75 more"):
        fill(net, Source("empty", {}, net.get_parameter), "weights.dit")


@pytest.mark.parametrize("left", [0.999, 0.5, 0.001, 0])
def test_a_truncated_pickle_is_named(tmp_path: Path, left: float) -> None:
    file = tmp_path / "x_model_states.pt"
    torch.save({key: torch.randn(200, 200) for key in "ab"}, file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * left)])
    with pytest.raises(WeightsError, match=r"weights\.dit.*x_model_states\.pt is damaged or truncated.*fetch it again"):
        open_dit(str(tmp_path))


def test_a_pickle_with_code_is_refused_without_advice_to_trust_it(tmp_path: Path) -> None:
    torch.save({"module": Path("x")}, tmp_path / "x_model_states.pt")
    with pytest.raises(WeightsError, match=r"x_model_states\.pt holds more than tensors \(pathlib") as caught:
        open_dit(str(tmp_path))
    assert "weights_only" not in str(caught.value)


def test_an_old_pickle_and_a_pointer_are_refused(tmp_path: Path) -> None:
    old, pointer = tmp_path / "old.pt", tmp_path / "pointer.pt"
    torch.save(_states(), old, _use_new_zipfile_serialization=False)
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(WeightsError, match=r"old\.pt is not in the zip format.*save it anew"):
        open_dit(str(old))
    with pytest.raises(WeightsError, match=r"pointer\.pt is a git-lfs pointer"):
        open_vae(str(pointer))


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 3}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "pytorch_model.pt")
    with pytest.raises(WeightsError, match=r"pytorch_model\.pt"):
        open_vae(str(tmp_path))


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(_states(), file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(WeightsError, match=r"a\.safetensors is damaged or truncated"):
        open_safetensors(tmp_path, "weights.dit")


def test_a_missing_shard_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors.index.json").write_text(json.dumps({"weight_map": {"x.y": "a-00003.safetensors"}}))
    with pytest.raises(
        WeightsError, match=r"lacks a-00003\.safetensors, where a\.safetensors\.index\.json places x\.y"
    ):
        open_safetensors(tmp_path, "weights.dit")


def test_a_key_that_is_not_where_the_index_says_is_named(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "a.safetensors"}}
    (tmp_path / "a.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"a\.safetensors lacks y"):
        open_safetensors(tmp_path, "weights.dit")


def test_a_key_in_two_files_is_named(tmp_path: Path) -> None:
    for name in "ab":
        save_file({"x": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(WeightsError, match=r"x is in both .*a\.safetensors and .*b\.safetensors"):
        open_safetensors(tmp_path, "weights.dit")


@pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": {"x": 3}}', '{"weight_map": {"x": "../y"}}', "[]"])
def test_a_broken_index_is_named(tmp_path: Path, index: str) -> None:
    (tmp_path / "a.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=r"a\.safetensors\.index\.json is not"):
        open_safetensors(tmp_path, "weights.dit")


@pytest.mark.parametrize(
    ("path", "reason"), [("gs://bucket/x", "cannot read gs://bucket/x"), ("/nowhere/x", "nothing at /nowhere/x")]
)
def test_places_that_cannot_be_read(path: str, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        open_dit(path)


def test_an_empty_folder_and_a_crowded_one(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint"):
        open_dit(str(tmp_path))
    for name in ("a_model_states.pt", "b_model_states.pt"):
        torch.save(_states(), tmp_path / name)
    with pytest.raises(WeightsError, match=r"several: a_model_states\.pt, b_model_states\.pt"):
        open_dit(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "states", "kind"),
    [
        ("x_model_states.pt", {"module": {"img_in.proj.weight": 1}}, "dit"),
        ("renamed.pt", {"img_in.proj.weight": 1}, "dit"),
        ("pytorch_model.pt", {"state_dict": {"vae.encoder.conv_in.conv.weight": 1}}, "vae"),
        ("renamed.pt", {"decoder.conv_in.conv.weight": 1}, "vae"),
        ("shards.safetensors", {"decoder.conv_in.conv.weight": 1}, "vae"),
    ],
)
def test_what_a_checkpoint_is_shows_in_its_keys(tmp_path: Path, name: str, states: Any, kind: str) -> None:
    def tensors(value: Any) -> Any:
        return {key: tensors(item) for key, item in value.items()} if isinstance(value, dict) else torch.ones(value)

    (save_file if name.endswith(".safetensors") else torch.save)(tensors(states), tmp_path / name)
    assert detect_kind(str(tmp_path / name)) == kind
    if name != "renamed.pt":
        assert detect_kind(str(tmp_path)) == kind


def test_random_weights_depend_on_name_and_seed_only() -> None:
    first, second, other = _net(), _net("cpu"), _net()
    fill_random(first, 7)
    fill_random(second, 7)
    fill_random(other, 8)
    assert _same(first, second.state_dict())
    weight = first.state_dict()["0.weight"]
    assert not torch.equal(weight, other.state_dict()["0.weight"])
    assert torch.equal(weight, drawn("0.weight", (3, 4), 7))


def test_random_weights_have_working_scales() -> None:
    matrix, norm, bias = drawn("a.weight", (300, 200), 1), drawn("n.weight", (500,), 1), drawn("n.bias", (500,), 1)
    assert matrix.std() * 200**0.5 == pytest.approx(1, abs=0.05)
    assert norm.mean() == pytest.approx(1, abs=0.05)
    assert bias.abs().max() < 1
    assert drawn("e.weight", (300, 200), 1, is_table=True).std() == pytest.approx(1, abs=0.05)
    kernel = drawn("c.weight", (40, 30, 3, 3, 3), 1)
    assert kernel.sum((2, 3, 4)).std() * 30**0.5 == pytest.approx(1.3, abs=0.15)
    assert drawn("scale", (1,), 1).item() == pytest.approx(1, abs=0.5)


def test_tables_that_are_in_no_checkpoint_must_be_built_for_real() -> None:
    with torch.device("meta"):
        net = nn.Module()
        net.register_buffer("table", torch.ones(3), persistent=False)
    with pytest.raises(ValueError, match="table"):
        allocate(net)


def test_tables_that_are_in_no_checkpoint_are_kept() -> None:
    net = nn.Module()
    net.add_module("linear", nn.Linear(2, 2, device="meta"))
    net.register_buffer("table", torch.arange(3), persistent=False)
    fill_random(net, 0)
    assert net.get_buffer("table").tolist() == [0, 1, 2]


def test_fingerprint_follows_sizes_and_seed() -> None:
    base = fingerprint(_preset())
    assert base == fingerprint(_preset())
    assert base != fingerprint(_preset(seed=99))
    preset = _preset()
    wider = preset.dit.model_copy(update={"mlp_width_ratio": 3.0})
    assert base != fingerprint(preset.model_copy(update={"dit": wider}))
    steps = preset.sampling.model_copy(update={"steps": 3})
    assert base == fingerprint(preset.model_copy(update={"sampling": steps}))


def test_fingerprint_follows_the_image_encoder(tmp_path: Path) -> None:
    preset = load_preset("tiny-framepack")

    def seeing(**vision: Any) -> str:
        return fingerprint(preset.model_copy(update={"vision": VisionConfig(**vision)}))

    sizes = preset.vision.random if preset.vision else None
    assert sizes is not None
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    stored = seeing(path=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    drawn_alike, drawn_wider = seeing(random=sizes), seeing(random=sizes | {"num_hidden_layers": 3})
    assert drawn_alike == fingerprint(preset)
    assert len({drawn_alike, drawn_wider, stored, seeing(path=str(tmp_path))}) == 4


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "two")]
    torch.manual_seed(0)
    states = _states()
    for place in places:
        place.mkdir()
        save_file(states, place / "vae.safetensors")
        save_file(states, place / "dit.safetensors")

    def of(place: Path) -> str:
        files = {name: str(place / f"{name}.safetensors") for name in ("dit", "vae")}
        return fingerprint(_preset(kind="files", **files))

    assert of(places[0]) == of(places[1])
    (places[1] / "notes.json").write_text("{}")  # no reader opens it
    assert of(places[0]) == of(places[1])
    save_file({**states, "0.bias": torch.ones(3)}, places[1] / "dit.safetensors")
    assert of(places[0]) != of(places[1])


def test_large_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr("gamecraft_core.weights.fingerprint._REMEMBERED_FROM_BYTES", 1)
    file = tmp_path / "x.safetensors"
    save_file(_states(), file)
    preset = _preset(kind="files", dit=str(file), vae=str(file))
    first = fingerprint(preset)
    stat = file.stat()
    file.write_bytes(bytes(stat.st_size))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(preset) == first  # same size and date: the remembered value
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert fingerprint(preset) != first

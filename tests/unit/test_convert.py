"""Conversion to shards: content, limits, types, what is in the way, and what a second start finds."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gamecraft_core.base.errors import UsageError, WeightsError
from gamecraft_core.weights.convert import INDEX, convert, plan
from gamecraft_core.weights.files import UNFINISHED, open_safetensors
from gamecraft_core.weights.quantise import FP8, quantise
from gamecraft_core.weights.readers import open_dit, open_vae
from gamecraft_core.weights.source import Entry, Source
from jobs.convert import main, size

SHARD = 4096


def _states() -> dict[str, Tensor]:
    """Several types and shapes, odd byte counts before wide ones, a scalar, an empty one, a view with strides."""
    torch.manual_seed(1)
    return {
        "blocks.0.flag": torch.tensor([True, False, True]),
        "blocks.0.fc.weight": torch.randn(24, 32).bfloat16(),
        "blocks.0.fc.bias": torch.randn(24),
        "blocks.1.fc.weight": torch.randn(32, 24).bfloat16().t(),
        "blocks.1.modulation.weight": torch.randn(16, 16).bfloat16(),
        "scale": torch.tensor(3.5, dtype=torch.float64),
        "none": torch.zeros(0, 4),
        "ids": torch.arange(5),
    }


@pytest.fixture
def official(tmp_path: Path) -> Path:
    file = tmp_path / "src" / "mp_rank_00_model_states.pt"
    file.parent.mkdir()
    torch.save({"module": _states(), "dp_world_size": 8}, file)
    return file


def _convert(source: Path, out: Path, *options: str, status: int = 0) -> None:
    assert main([str(source), str(out), "--max-shard-bytes", str(SHARD), *options]) == status


def _read(out: Path) -> dict[str, Tensor]:
    source = open_safetensors(out, "weights.dit")
    return {key: source.read(key) for key in source.entries}


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value.dtype == second[key].dtype and torch.equal(value, second[key]) for key, value in first.items()
    )


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_shards_hold_what_the_official_file_holds(official: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _convert(official.parent, out)
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) > 1
    assert all(file.stat().st_size <= SHARD for file in shards)
    assert _same(_read(out), _states())
    library = {key: value for file in shards for key, value in load_file(file).items()}
    assert _same(library, _states())
    index = json.loads((out / INDEX).read_text())
    assert set(index["weight_map"]) == set(_states())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in _states().values())
    source = open_dit(str(out))
    assert source.entries["blocks.0.fc.weight"].shape == (24, 32)


def test_the_fingerprint_is_of_the_content(official: Path, tmp_path: Path) -> None:
    def of(source: Source, name: str, limit: int = SHARD) -> str:
        return convert(source, {}, str(tmp_path / name), limit)

    first = of(open_dit(str(official)), "first")
    assert of(open_dit(str(official)), "large", 10 * SHARD) == first
    assert of(open_dit(str(tmp_path / "first")), "again") == first
    states = _states()
    states["ids"][2] = 7
    torch.save(states, tmp_path / "other.pt")
    assert of(open_dit(str(tmp_path / "other.pt")), "other") != first


def test_a_vae_loses_its_prefix_and_what_is_not_its_own(tmp_path: Path) -> None:
    states = {"vae.encoder.conv_in.conv.weight": torch.randn(4, 3), "loss.discriminator": torch.ones(2)}
    torch.save({"state_dict": states}, tmp_path / "pytorch_model.pt")
    _convert(tmp_path, tmp_path / "out")
    assert list(_read(tmp_path / "out")) == ["encoder.conv_in.conv.weight"]
    assert list(open_vae(str(tmp_path / "out")).entries) == ["encoder.conv_in.conv.weight"]


def test_types_are_cast_on_request(official: Path, tmp_path: Path) -> None:
    _convert(official, tmp_path / "out", "--dtype", "float16")
    made = _read(tmp_path / "out")
    wanted = {key: value.half() if value.is_floating_point() else value for key, value in _states().items()}
    assert _same(made, wanted)


def test_fp8_takes_the_blocks_linears_and_adds_their_scales(official: Path, tmp_path: Path) -> None:
    _convert(official, tmp_path / "out", "--dtype", "fp8")
    made, states = _read(tmp_path / "out"), _states()
    assert made.keys() - states.keys() == {f"blocks.{number}.fc.weight_scale" for number in range(2)}
    values, scale = quantise(states["blocks.1.fc.weight"])
    assert made["blocks.1.fc.weight"].dtype == FP8
    assert torch.equal(made["blocks.1.fc.weight"].view(torch.uint8), values.contiguous().view(torch.uint8))
    assert torch.equal(made["blocks.1.fc.weight_scale"], scale)
    assert made["blocks.1.modulation.weight"].dtype == torch.bfloat16


def test_a_second_start_changes_nothing(official: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _convert(official, out)
    before = {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in out.glob("*.safetensors")}
    _convert(official, out)
    assert {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in out.glob("*.safetensors")} == before


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone", "swapped"])
def test_a_finished_shard_that_changed_is_written_again(official: Path, tmp_path: Path, harm: str) -> None:
    out = tmp_path / "out"
    _convert(official, out)
    wanted = _bytes(out)
    first, second = sorted(out.glob("*.safetensors"))[:2]
    data = first.read_bytes()
    if harm == "flipped":
        first.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "cut":
        first.write_bytes(data[:-1])
    elif harm == "gone":
        first.unlink()
    else:
        first.write_bytes(second.read_bytes())
    _convert(official, out)
    assert _bytes(out) == wanted


def _refused(capsys: pytest.CaptureFixture[str], source: Path, out: Path, *options: str) -> str:
    capsys.readouterr()
    before = _bytes(out) if out.is_dir() else {}
    _convert(source, out, *options, status=2)
    assert (_bytes(out) if out.is_dir() else {}) == before
    error = capsys.readouterr().err
    assert error.startswith("refused: ")
    assert len(error.splitlines()) == 1
    return error


def test_what_is_in_the_way_is_not_overwritten(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, foreign = tmp_path / "out", tmp_path / "foreign"
    _convert(official, out)
    assert "another dtype" in _refused(capsys, official, out, "--dtype", "float16")
    stat = official.stat()
    os.utime(official, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert "a conversion with another source" in _refused(capsys, official, out)
    foreign.mkdir()
    (foreign / "model.safetensors").touch()
    assert "holds model.safetensors already" in _refused(capsys, official, foreign)
    (out / UNFINISHED).write_text("{")
    assert "convert.json is damaged" in _refused(capsys, official, out)


def test_what_cannot_be_converted_is_refused(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "blocks.0.fc.weight needs" in _refused(capsys, official, out, "--max-shard-bytes", "1KB")
    official.write_bytes(official.read_bytes()[:-50])
    assert f"{official} is damaged or truncated" in _refused(capsys, official, out)
    assert "there is nothing at" in _refused(capsys, tmp_path / "nowhere", out)
    torch.save({"module": {"x": torch.ones(2, dtype=torch.complex64)}}, official)
    assert "x is torch.complex64" in _refused(capsys, official, out)


def test_a_folder_that_cannot_be_written(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert "file" in _refused(capsys, official, tmp_path / "file" / "out")


def test_too_little_room_is_seen_before_anything_is_written(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert "do not fit into" in _refused(capsys, official, tmp_path / "out")


def test_an_unfinished_folder_is_no_checkpoint(official: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _convert(official, out)
    (out / INDEX).unlink()
    with pytest.raises(WeightsError, match=r"weights\.dit: .*unfinished conversion \(run jobs\.convert again"):
        open_dit(str(out))


def test_shards_are_planned_within_their_limit() -> None:
    entries = {f"layer.{number}": Entry((number * 5 + 1, 3), torch.float32, "x") for number in range(60)}
    source = Source("x", entries, lambda key: torch.zeros(entries[key].shape))
    shards = plan(source, SHARD)
    assert [key for shard in shards for key in shard.keys] == list(entries)
    assert all(sum(entries[key].nbytes for key in shard.keys) <= SHARD for shard in shards)
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"


@pytest.mark.parametrize(
    ("text", "count"), [("5GB", 5 * 10**9), ("256MiB", 256 << 20), ("300 kb", 300_000), ("12", 12), ("1g", 10**9)]
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["6GB", "0", "-1", "five", "5GBB", "1.5GB", ""])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="5GB"):
        size(text)


def test_the_error_for_a_memory_store(official: Path) -> None:
    with pytest.raises(UsageError, match="cannot write shards to memory"):
        convert(open_dit(str(official)), {}, "memory://x", SHARD)


def test_a_reader_that_lies_is_a_programming_error(tmp_path: Path) -> None:
    entries: dict[str, Any] = {"x": Entry((2,), torch.float32, str(tmp_path))}
    source = Source("x", entries, lambda key: torch.zeros(3))
    with pytest.raises(ValueError, match="not what its header says"):
        convert(source, {}, str(tmp_path / "out"), SHARD)

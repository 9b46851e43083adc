"""Presets, fleets and the resolved configuration: built-in and from files, and every mistake in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.ids import digest
from gamecraft_core.base.store import open_store
from jobs import config
from jobs.config import (
    RunConfig,
    fleet_names,
    identity,
    load_fleet,
    load_preset,
    preset_names,
    public,
    resolve,
    with_endpoint,
)
from tests.fakes.presets import preset_values

Writer = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes a preset as YAML and returns its path."""

    def write_preset(name: str = "tiny", **sections: dict[str, Any]) -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(preset_values(name, **sections)))
        return str(path)

    return write_preset


def test_every_built_in_preset_and_fleet_loads() -> None:
    assert {load_preset(name).name for name in preset_names()} == set(preset_names())
    families = {"hunyuan-video", "framepack", "framepack-f1"}
    assert {*families, *(f"tiny-{name}" for name in families)} <= set(preset_names())
    assert {load_fleet(name).name for name in fleet_names()} == set(fleet_names())
    assert {"laptop", "demo", "three", "8xa100-throughput", "8xa100-latency"} <= set(fleet_names())


def test_paths_in_a_preset_are_relative_to_its_file(write: Writer, tmp_path: Path) -> None:
    weights = {"kind": "files", "dit": "./w/../dit", "vae": "s3://bucket/vae"}
    preset = load_preset(write(weights=weights, text={"clip": "/models/clip"}))
    assert preset.text.llm == str(tmp_path / "llm")
    assert preset.text.clip == "/models/clip"
    assert preset.weights.dit == str(tmp_path / "dit")
    assert preset.weights.vae == "s3://bucket/vae"


def test_other_relative_paths_are_seen_from_where_the_command_runs(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    path = write(weights={"kind": "files", "dit": "weights/dit.pt", "vae": "~/vae"}, text={"llm": "/models/../llm"})
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", "/home/me")
    sets = ["text.clip=./clip"]
    preset = resolve(path, sets=sets).preset
    assert preset.weights.dit == f"{here}/weights/dit.pt"
    assert preset.weights.vae == "/home/me/vae"
    assert (preset.text.llm, preset.text.clip) == ("/llm", f"{here}/clip")
    assert resolve(path, sets=["weights.dit=s3://bucket/dit"]).preset.weights.dit == "s3://bucket/dit"
    first = identity(resolve(path, sets=sets))
    here.rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    assert identity(resolve(path, sets=sets)) == first, "an output does not belong to a working directory"


def test_a_resolved_configuration_survives_json(write: Writer) -> None:
    resolved = resolve(write(), "demo", ["sampling.steps=7", "limits.max_sessions=3"], keep_latents=True)
    assert resolved.preset.sampling.steps == 7
    assert resolved.fleet.name == "demo"
    assert resolved.limits.max_sessions == 3
    assert resolved.output.keep_latents
    assert RunConfig.model_validate(json.loads(json.dumps(public(resolved)))) == resolved
    open_store("s3://bucket/prefix", resolved.store.model_dump())


def test_a_set_wins_over_a_flag(write: Writer) -> None:
    assert not resolve(write(), sets=["output.keep_latents=false"], keep_latents=True).output.keep_latents


def test_the_presets_of_a_fleet_are_loaded_beside_the_runs_own(write: Writer) -> None:
    own, other = write(), write("other")
    resolved = resolve(own, sets=[f"fleet.presets=[{other}]"])
    assert list(resolved.presets) == ["tiny", "other"]
    assert list(resolve(other, sets=[f"fleet.presets=[{other}]"]).presets) == ["other"]
    copy = Path(other).with_name("copy.yaml")
    copy.write_text(Path(other).read_text())
    with pytest.raises(UsageError, match="two presets of the fleet have one name"):
        resolve(other, sets=[f"fleet.presets=[{copy}]"])


def test_identity_is_what_shapes_the_output(write: Writer) -> None:
    path = write()
    base = digest(identity(resolve(path)))
    for same in (
        "runtime.device=cpu",
        "limits.max_sessions=2",
        "store.endpoint_url=http://host:1",
        "fleet.text.lanes=2",
    ):
        assert digest(identity(resolve(path, sets=[same]))) == base, same
    assert digest(identity(resolve(path, "demo"))) == base
    for other in (
        "runtime.threads=2",
        "runtime.vae_tile_batch=2",
        "sampling.seed=6",
        "output.rows_per_shard=5",
        "output.keep_latents=true",
    ):
        assert digest(identity(resolve(path, sets=[other]))) != base, other
    assert digest(identity(resolve(path, sets=[f"fleet.presets=[{write('other')}]"]))) != base


def test_identity_does_not_depend_on_where_the_code_lies(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve(write(), sets=["video.width=112"])
    elsewhere = json.loads(json.dumps(public(resolved)).replace(str(tmp_path), "/elsewhere"))
    monkeypatch.setattr(config, "PRESETS", tmp_path)
    first = identity(resolved)
    monkeypatch.setattr(config, "PRESETS", Path("/elsewhere"))
    assert identity(RunConfig.model_validate(elsewhere)) == first
    assert first["preset"]["text"]["llm"] == "presets:llm"


def test_the_endpoint_comes_from_the_environment_unless_it_is_set(write: Writer) -> None:
    config = resolve(write())
    environment = {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "http://s3"}
    assert with_endpoint(config, environment).store.endpoint_url == "http://s3"
    assert with_endpoint(config, {"AWS_ENDPOINT_URL": "http://all"}).store.endpoint_url == "http://all"
    assert with_endpoint(config, {}) == config
    chosen = resolve(write(), sets=["store.endpoint_url=http://mine"])
    assert with_endpoint(chosen, environment).store.endpoint_url == "http://mine"
    assert identity(with_endpoint(config, environment)) == identity(config)


def test_nothing_public_holds_a_password(write: Writer) -> None:
    shown = public(resolve(write(), sets=["store.endpoint_url=https://me:pass@host:7480/x"]))
    assert shown["store"]["endpoint_url"] == "https://host:7480/x"
    assert "pass@" not in json.dumps(shown)
    with pytest.raises(UsageError, match="a user name or a password") as caught:
        resolve(write(), sets=["weights.dit=s3://me:pass@bucket/dit@v1"])
    assert caught.value.field == "weights.dit"
    assert "pass" not in caught.value.message.replace("password", "")


@pytest.mark.parametrize(
    ("name", "load", "remedy"),
    [
        ("latpop", load_fleet, "did you mean laptop?"),
        ("zzz", load_fleet, "use one of 8xa100-elastic, 8xa100-latency"),
        ("./none.yaml", load_fleet, "check the path"),
        ("none/at/all", load_preset, "check the path"),
    ],
)
def test_an_unknown_name_says_which_was_meant(name: str, load: Callable[[str], Any], remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(name)
    assert remedy in caught.value.remedy


def test_an_unknown_preset_says_which_was_meant(write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("tiny-model")
    monkeypatch.setattr(config, "PRESETS", tmp_path)
    with pytest.raises(UsageError, match="unknown preset 'tiny-modle'") as caught:
        load_preset("tiny-modle")
    assert caught.value.remedy == "did you mean tiny-model?"


@pytest.mark.parametrize(
    ("sections", "field", "problem", "remedy"),
    [
        ({"sampling": {"stepz": 4}}, "sampling.stepz", "unknown key", "did you mean steps?"),
        ({"samplin": {}}, "samplin", "unknown key", "did you mean sampling?"),
        ({"sampling": {"steps": 0}}, "sampling.steps", "0 is not possible", "greater than or equal to 1"),
        ({"sampling": {"steps": "many"}}, "sampling.steps", "'many' is not possible", "integer"),
        ({"sampling": {"guidance": float("nan")}}, "sampling.guidance", "nan", ""),
        ({"control": {"speed_max": float("inf")}}, "control.speed_max", "inf is not possible", "finite"),
        ({"runtime": {"dtype": "float8"}}, "runtime.dtype", "'float8' is not possible", "'bfloat16'"),
        ({"weights": {"kind": "files"}}, "weights", "needs weights.dit and weights.vae", "change it"),
        ({"dit": {"num_heads": 3}}, "dit", "not a multiple of num_heads", "change it"),
        ({"vae": {"time_compression_ratio": 8}}, "vae.time_compression_ratio", "888", "884 VAE"),
        ({"vae": {"time_compression_ratio": 1}}, "vae.time_compression_ratio", "none", "884 VAE"),
        ({"video": {"width": 100}}, "video.width", "multiple of 16", "96 or 112"),
    ],
)
def test_a_mistake_in_a_preset_names_field_and_remedy(
    write: Writer, sections: dict[str, dict[str, Any]], field: str, problem: str, remedy: str
) -> None:
    path = write(**sections)
    with pytest.raises(UsageError) as caught:
        resolve(path)
    text = str(caught.value)
    assert field in text
    assert problem in text
    assert remedy in caught.value.remedy
    assert "validation error" not in text
    assert "pydantic" not in text


def test_several_mistakes_are_listed_together(write: Writer, tmp_path: Path) -> None:
    values = preset_values(sampling={"stepz": 4, "shift": -1})
    del values["video"]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError) as caught:
        load_preset(str(tmp_path / "p.yaml"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "preset p has 3 problems:"
    assert {line.split(":")[0].strip() for line in lines[1:]} == {"sampling.stepz", "sampling.shift", "video"}


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "a: b: c", "\x00", "text: 5\nweights: 3\n"])
def test_a_file_that_is_no_preset_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UsageError):
        load_preset(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not readable YAML"):
        load_preset(str(path))

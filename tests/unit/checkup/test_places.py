"""Weights and encoders that are wrong, a folder that can be written to and one that cannot; the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gamecraft_core.families.hunyuan_video import build_model
from gamecraft_core.vae.model import CausalVae
from jobs import doctor
from jobs.checkup import places
from jobs.checkup.finding import Asked, carried_out
from jobs.config import load_fleet, resolve


def micro(*sets: str) -> Asked:
    return Asked((resolve("micro-gamecraft", sets=sets).preset,), load_fleet("laptop"))


def test_weights_that_fit_have_a_fingerprint() -> None:
    found = places.weights(micro())
    assert found.status == "ok"
    assert len(found.same["weights of micro-gamecraft"]) == 16


def test_weights_are_compared_with_the_model_of_the_presets_own_family(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("dit", "vae")}
    sets = ["preset.dit.depth_double_blocks=1", "preset.dit.depth_single_blocks=1", "preset.weights.kind=files"]
    sets += [f"preset.weights.{name}={path}" for name, path in paths.items()]
    preset = resolve("tiny-hunyuan-video", sets=sets).preset
    with torch.device("meta"):
        models = {"dit": build_model(preset, "meta", torch.float32), "vae": CausalVae(preset.vae)}
    for name, path in paths.items():
        save_file({key: torch.zeros(value.shape) for key, value in models[name].state_dict().items()}, path)
    assert places.weights(Asked((preset,), load_fleet("laptop"))).status == "ok"
    other = preset.model_copy(update={"family": "hunyuan_video_i2v"})
    (found,) = carried_out([places.weights], Asked((other,), load_fleet("laptop")))
    assert (found.status, "img_in" in found.seen) == ("fail", True)


def test_wrong_absent_and_torn_weights_are_told_apart(tmp_path: Path) -> None:
    vae = micro().presets[0].weights.vae
    (wrong,) = carried_out([places.weights], micro(f"weights.dit={vae}"))
    assert (wrong.status, "does not fit the preset" in wrong.seen) == ("fail", True)
    (absent,) = carried_out([places.weights], micro(f"weights.vae={tmp_path}/none.safetensors"))
    assert (absent.status, "weights.vae: there is nothing at" in absent.seen) == ("fail", True)
    place = Path(vae or "")
    file = place if place.is_file() else next(place.glob("*.safetensors"))
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(file.read_bytes()[:-100])
    (found,) = carried_out([places.weights], micro(f"weights.vae={torn}"))
    assert (found.status, "damaged or truncated" in found.seen) == ("fail", True)


def test_a_text_encoder_without_its_files_is_told(tmp_path: Path) -> None:
    assert places.encoders(micro()).status == "ok"
    folder = tmp_path / "llm"
    shutil.copytree(micro().presets[0].text.llm, folder)
    (folder / "tokenizer.json").unlink()
    (found,) = carried_out([places.encoders], micro(f"text.llm={folder}"))
    assert found.status == "fail"
    assert "tokenizer.json" in found.seen


def test_an_image_encoder_and_a_model_that_rewrites_prompts_are_looked_for(tmp_path: Path) -> None:
    sets = (f"preset.text.rewrite={tmp_path}/words", f"preset.vision.path={tmp_path}/eyes")
    for name, setting in zip(("words", "eyes"), sets, strict=True):
        asked = Asked((resolve("micro-gamecraft", sets=[setting]).preset,), load_fleet("laptop"))
        (absent,) = carried_out([places.encoders], asked)
        assert (absent.status, f"there is nothing at {tmp_path}/{name}" in absent.seen) == ("fail", True)
        shutil.copytree(micro().presets[0].text.llm, tmp_path / name)
        assert f"{name}" in places.encoders(asked).seen


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    fresh = replace(micro(), out=str(tmp_path / "new"))
    assert places.store(fresh).status == "ok"
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    (refused,) = carried_out([places.store], replace(micro(), out=str(tmp_path / "file")))
    assert (refused.status, "put does not work" in refused.seen) == ("fail", True)


def test_the_command_tells_what_to_do_and_its_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["environment", "--out", str(tmp_path / "out"), "--metrics-port", "0", "--port", "0"]
    assert doctor.main([*options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"]
    assert {"python", "packages", "store", "weights"} <= {each["name"] for each in told["findings"]}
    assert doctor.main([*options, "--set", f"text.llm={tmp_path}"]) == 3
    said = capsys.readouterr().out
    assert "what to do:" in said
    assert "fail  encoders (here): fetch the whole folder" in said
    assert doctor.main(["environment", "--preset", "nobody"]) == 2

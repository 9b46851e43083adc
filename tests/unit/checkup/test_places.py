"""Weights and text encoders that are wrong, a folder that can be written to and one that cannot; the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

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
    assert places.text_encoders(micro()).status == "ok"
    folder = tmp_path / "llm"
    shutil.copytree(micro().presets[0].text.llm, folder)
    (folder / "tokenizer.json").unlink()
    (found,) = carried_out([places.text_encoders], micro(f"text.llm={folder}"))
    assert found.status == "fail"
    assert "tokenizer.json" in found.seen


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
    assert "fail  text encoders (here): fetch the whole folder" in said
    assert doctor.main(["environment", "--preset", "nobody"]) == 2

"""Checkpoints through the whole job: files give what they hold, and a broken one ends the run before it begins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from jobs.config import load_preset
from tests.fakes.checkpoints import Official, write_official
from tests.ray.runs import row, synthesize
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Official:
    return write_official(load_preset("tiny-gamecraft"), tmp_path_factory.mktemp("official"))


def test_a_run_from_files_gives_the_numbers_they_hold(
    ray_cluster: RayCluster, official: Official, tmp_path: Path
) -> None:
    """Two presets in one fleet: seeded draws, and files that hold the same draws."""
    values = load_preset("tiny-gamecraft").model_dump(mode="json") | {"name": "official"}
    values["weights"] = {"kind": "files", "dit": str(official.dit), "vae": str(official.vae)}
    values["text"] |= {"llm": str(official.llm), "clip": str(official.clip)}
    path = tmp_path / "official.yaml"
    path.write_text(yaml.safe_dump(values))
    small = {"height": 32, "width": 48, "steps": 3, "seed": 3}
    rows = [row("drawn", "w", **small), row("read", "w", preset="official", **small)]
    finished = synthesize(tmp_path, rows, "laptop", "--set", f"fleet.presets=[{path}]")
    assert finished.status == 0
    drawn, read = finished.rows()["drawn"], finished.rows()["read"]
    assert drawn["chunks"][0]["latents_sha256"] == read["chunks"][0]["latents_sha256"]
    assert drawn["video_sha256"] == read["video_sha256"]


def _truncated_dit(official: Official, folder: Path) -> Official:
    path = folder / "mp_rank_00_model_states.pt"
    path.write_bytes((official.dit / path.name).read_bytes()[:-1000])
    return replace(official, dit=path)


def _shardless_llm(official: Official, folder: Path) -> Official:
    place = Path(shutil.copytree(official.llm, folder / "llm"))
    (place / "model.safetensors").unlink()
    index = {"weight_map": {"language_model.model.embed_tokens.weight": "model-00001-of-00001.safetensors"}}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    return replace(official, llm=place)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (_truncated_dit, ("weights.dit: ", "mp_rank_00_model_states.pt is damaged or truncated")),
        (_shardless_llm, ("text.llm: ", "model-00001-of-00001.safetensors", "embed_tokens.weight")),
    ],
)
def test_a_broken_checkpoint_ends_the_run_with_one_line(
    ray_cluster: RayCluster,
    official: Official,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    harm: Callable[[Official, Path], Official],
    named: tuple[str, ...],
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    finished = synthesize(tmp_path / "run", [row("s")], "laptop", *harm(official, folder).sets)
    assert finished.status == 2
    error = capfd.readouterr().err
    refusals = [line for line in error.splitlines() if line.startswith("refused: ")]
    assert len(refusals) == 1, error
    assert all(part in refusals[0] for part in named), refusals[0]
    assert "Traceback" not in error
    assert not (finished.out / "data").exists()
    assert not (finished.out / "run.json").exists(), "a run that could not start leaves the output free"

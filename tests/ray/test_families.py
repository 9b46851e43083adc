"""Every family through the whole system: one manifest on one fleet, after a kill bit for bit, and one of one's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from gamecraft_core.media.fragment import probe
from tests.fakes.adding import write_family
from tests.ray.runs import INPUTS, ROOT, Job, essence, row, synthesize
from tests.servers.cluster import ENV, RayCluster

IMAGE = str(INPUTS / "harbour.png")
SIZE: dict[str, Any] = {"steps": 2, "height": 32, "width": 48, "seed": 5}
#: Three sections of 36 frames and the start.
PACKED = {"prompt": "A harbour.", "image": IMAGE, "seconds": 3.6, **SIZE}
SPANS = {
    "tiny-framepack": [(109, 109), (73, 109), (0, 73)],
    "tiny-framepack-f1": [(0, 4), (4, 40), (40, 109)],
}

pytestmark = pytest.mark.ray


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    path = tmp_path / "mixed.yaml"
    path.write_text(yaml.safe_dump({"name": "mixed", "presets": ["tiny-hunyuan-video", *SPANS]}))
    return str(path)


def mixed() -> list[dict[str, Any]]:
    """A row of every family, two videos of one of them, and a row whose preset this fleet does not hold."""
    return [
        row("walk", "w d", **SIZE),
        {"session_id": "whole", "preset": "tiny-hunyuan-video", "prompt": "A hill.", "frames": 17, "videos": 2, **SIZE},
        {"session_id": "inverted", "preset": "tiny-framepack", **PACKED},
        {"session_id": "forward", "preset": "tiny-framepack-f1", **PACKED},
        {"session_id": "elsewhere", "preset": "hunyuan-video", "prompt": "A hill."},
    ]


def test_a_mixed_manifest_runs_on_one_fleet(ray_cluster: RayCluster, tmp_path: Path, fleet: str) -> None:
    refused = synthesize(tmp_path / "strict", mixed(), fleet, "--strict", settings=())
    assert refused.status == 2
    assert not (refused.out / "_commits").exists()

    done = synthesize(tmp_path / "run", mixed(), fleet, settings=())
    assert done.status == 3
    found = done.rows()
    assert {name: (each["num_frames"], each["fps"], each["start_kind"]) for name, each in found.items()} == {
        "walk": (66, 25, "image"),
        "whole": (17, 24, "none"),
        "whole-2": (17, 24, "none"),
        "inverted": (109, 30, "image"),
        "forward": (109, 30, "image"),
    }
    assert [found[name]["seed"] for name in ("whole", "whole-2")] == [5, 6]
    for each in found.values():
        film = probe((done.out / each["video_path"]).read_bytes())
        assert (film.frames, film.monotonic) == (each["num_frames"], True)
        camera = each["num_frames"] if each["preset"] == "tiny-gamecraft" else 0
        assert len(each["camera_to_world"]) == len(each["keys"]) == camera
        if each["preset"] in SPANS:
            assert [(chunk["start"], chunk["end"]) for chunk in each["chunks"]] == SPANS[each["preset"]]
    (wrong,) = pq.read_table(done.out / "errors.parquet").to_pylist()
    assert (wrong["session_id"], wrong["field"], wrong["stage"]) == ("elsewhere", "preset", "validate")
    assert wrong["remedy"] == "did you mean 'tiny-hunyuan-video'?"


@pytest.mark.parametrize("preset", ["tiny-framepack", "tiny-framepack-f1", "tiny-hunyuan-video"])
def test_a_killed_run_ends_in_the_same_bits(ray_cluster: RayCluster, tmp_path: Path, preset: str) -> None:
    if preset in SPANS:
        rows: list[dict[str, Any]] = [{"session_id": "a", **PACKED, "seconds": 6}]
    else:
        rows = [{"session_id": name, "prompt": "A hill.", "frames": 33, **SIZE} for name in "abc"]
    undisturbed = synthesize(tmp_path / "undisturbed", rows, "laptop", preset=preset, settings=())
    assert undisturbed.status == 0

    job = Job(ray_cluster, tmp_path / "killed", rows, preset, ())

    def under_way() -> bool:
        return job.staged("a") >= 2 if preset in SPANS else (job.out / "_commits" / "a.parquet").exists()

    assert job.when(under_way, signal.SIGKILL) == -signal.SIGKILL, job.log.read_text()
    durable = job.staged("a")
    done = synthesize(tmp_path / "killed", rows, "laptop", preset=preset, settings=())
    assert done.status == 0
    assert essence(done) == essence(undisturbed)
    if preset in SPANS:
        again = done.slices("denoise")
        assert sorted(chunk for _, chunk in again) == list(range(durable, 5))


def test_a_family_of_ones_own_walks_through_the_whole_system(tmp_path: Path) -> None:
    preset = write_family(tmp_path)
    out = tmp_path / "walk.mp4"
    command = [sys.executable, "-m", "jobs.generate", "--preset", str(preset), "--image", IMAGE, "--out", str(out)]
    environment = {**os.environ, **ENV, "PYTHONPATH": str(tmp_path)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [*command, "--actions", "w left_rot"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert probe(out.read_bytes()).frames == 34

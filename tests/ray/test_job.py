"""The job as its users meet it: overlap, wrong rows beside good ones, refusal, resumption, one session to a file."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pyarrow.parquet
import pytest

from gamecraft_core.media.fragment import probe
from jobs import generate
from jobs.synthesize import main as synthesize_main
from tests.ray.runs import INPUTS, Finished, row, synthesize
from tests.ray.started import Started, processes_titled
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray


LONG_STAGES = ("video.height=128", "video.width=224", "sampling.steps=2")


def errors(finished: Finished) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(finished.out / "errors.parquet").to_pylist()
    return rows


def test_every_decode_overlaps_the_next_denoise_of_its_session(ray_cluster: RayCluster, tmp_path: Path) -> None:
    rows = [row("a", "w*3", seed=1), row("b", "d*3", seed=2)]
    # large and with few steps: both stages take far longer than a busy machine needs to start one
    finished = synthesize(tmp_path, rows, "three", settings=LONG_STAGES)
    assert finished.status == 0
    denoise, decode = finished.slices("denoise"), finished.slices("decode")
    for name in ("a", "b"):
        for index in range(2):
            behind, before = decode[name, index], denoise[name, index + 1]
            assert max(behind[0], before[0]) < min(behind[1], before[1])


@pytest.fixture(scope="module")
def mixed(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two good rows among bad ones; one of these only shows itself when its image is decoded."""
    folder = tmp_path_factory.mktemp("mixed")
    truncated = folder / "truncated.png"
    truncated.write_bytes((INPUTS / "harbour.png").read_bytes()[:400])
    rows = [
        row("good-1"),
        row("missing", image="nowhere.png"),
        row("unknown", "jump"),
        row("truncated", image=str(truncated)),
        row("good-2", "s"),
        row("odd", height=100),
        row("good-1", "a"),
    ]
    return synthesize(folder, rows, "laptop")


def test_bad_rows_are_named_and_good_ones_commit(mixed: Finished) -> None:
    assert mixed.status == 3
    assert set(mixed.rows()) == {"good-1", "good-2"}
    found = {(error["row"], error["field"].partition("[")[0]) for error in errors(mixed)}
    assert found == {(2, "image"), (3, "actions"), (4, "image"), (6, "height"), (7, "session_id")}
    assert all(error["reason"] and error["remedy"] for error in errors(mixed))
    counts = json.loads((mixed.out / "run.json").read_text())["counts"]
    assert (counts["rows"], counts["committed"], counts["failed"], counts["remaining"]) == (7, 2, 5, 0)


def test_a_finished_job_run_again_does_nothing_and_says_the_same(mixed: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in mixed.out.rglob("*") if path.is_file()}
    again = synthesize(mixed.out.parent, _rows(mixed), "laptop")
    assert again.status == 3
    assert {path: path.stat().st_mtime_ns for path in mixed.out.rglob("*") if path.is_file()} == before


def test_a_refused_row_under_a_committed_id_stays_refused(mixed: Finished) -> None:
    """Row 7 repeats row 1's id; the record under that id is row 1's alone, also when the run is taken up again."""
    (mixed.out / "data" / "train-00000-of-00001.parquet").unlink()
    (mixed.out / "errors.parquet").unlink()
    record = json.loads((mixed.out / "run.json").read_text())
    (mixed.out / "run.json").write_text(json.dumps(record | {"status": "running"}))
    again = synthesize(mixed.out.parent, _rows(mixed), "laptop")
    assert again.status == 3
    assert sorted(pyarrow.dataset.dataset(again.out / "data").to_table()["session_id"].to_pylist()) == [
        "good-1",
        "good-2",
    ]
    assert {error["row"] for error in errors(again)} == {2, 3, 4, 6, 7}
    assert json.loads((again.out / "run.json").read_text())["status"] == "finished"


def test_another_run_on_the_same_output_is_refused(mixed: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    again = synthesize(mixed.out.parent, _rows(mixed), "laptop", "--set", "sampling.shift=3")
    assert again.status == 2
    assert "sampling.shift: 5.0 there, 3.0 here" in capsys.readouterr().err


def test_strict_refuses_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = synthesize(tmp_path, [row("fine"), row("bad", "w:99")], "laptop", "--strict")
    assert refused.status == 2
    assert "row 2, actions" in capsys.readouterr().err
    assert not refused.out.exists()


def test_settings_of_rows_manifests_as_csv_and_several_shards(
    ray_cluster: RayCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = INPUTS / "corridor.png"
    lines = ["session_id,image,prompt,actions,height,steps,seed,chunk_frames"]
    lines += [f"c{number},{image},A hall.,w d:0.5,48,{number + 1},9,17" for number in range(3)]
    table = tmp_path / "manifest.csv"
    table.write_text("\n".join(lines))
    argv = ["--preset", "tiny-gamecraft", "--manifest", str(table), "--out", str(tmp_path / "out"), "--run-id", "mine"]
    argv += ["--metrics-port", "0", "--set", "output.rows_per_shard=2", "--set", "video.height=32"]
    argv += ["--set", "video.width=48"]
    assert synthesize_main(argv) == 0
    made = Finished(0, tmp_path / "out")
    assert sorted(path.name for path in (made.out / "data").iterdir()) == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    for number in range(3):
        found = made.rows()[f"c{number}"]
        assert (found["height"], found["width"], found["steps"], found["seed"]) == (48, 48, number + 1, 9)
        assert found["num_frames"] == 34
        assert probe((made.out / found["video_path"]).read_bytes()).height == 48
    assert json.loads((made.out / "run.json").read_text())["run_id"] == "mine"
    assert synthesize_main(argv) == 0
    assert synthesize_main([*argv, "--run-id", "other"]) == 2
    assert "belongs to run mine, not other" in capsys.readouterr().err


def test_generate_follows_a_pose_file_from_a_folder_with_a_space(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my inputs"
    folder.mkdir()
    shutil.copy(INPUTS / "arc.txt", folder)
    shutil.copy(INPUTS / "balloons.mp4", folder)
    monkeypatch.chdir(folder)
    argv = ["--preset", "tiny-gamecraft", "--video", "balloons.mp4", "--actions", "poses:arc.txt", "--out", "arc.mp4"]
    assert generate.main([*argv, "--metrics-port", "0", "--height", "32", "--width", "48", "--steps", "1"]) == 0
    assert probe((folder / "arc.mp4").read_bytes()).frames == 33


def test_generate_makes_one_playable_video(ray_cluster: RayCluster, tmp_path: Path) -> None:
    out = tmp_path / "walk.mp4"
    argv = ["--preset", "tiny-gamecraft", "--image", str(INPUTS / "forest.png"), "--actions", "w:0.5 up_rot:1"]
    argv += ["--out", str(out), "--metrics-port", "0", "--height", "32", "--width", "48", "--steps", "2"]
    assert generate.main(argv) == 0
    facts = probe(out.read_bytes())
    assert facts.fps == 25
    assert (facts.frames, facts.width, facts.height) == (66, 48, 32)


def test_stopped_by_sigterm_and_resumed(ray_cluster: RayCluster, tmp_path: Path) -> None:
    rows = [row(f"s{number}", "w*3", seed=number) for number in range(4)]
    job = Started(tmp_path, ray_cluster, rows, "laptop")
    job.ready()
    job.process.send_signal(signal.SIGTERM)
    assert job.end().status == 4, "".join(job.said)
    stopped = json.loads((job.out / "run.json").read_text())
    assert stopped["status"] == "stopped"
    assert stopped["counts"]["remaining"] > 0
    resumed = synthesize(tmp_path, rows, "laptop")
    assert resumed.status == 0
    assert set(resumed.rows()) == {f"s{number}" for number in range(4)}


def test_a_killed_lane_costs_nothing_but_time(ray_cluster: RayCluster, tmp_path: Path) -> None:
    rows = [row(f"s{number}", "w*3", seed=number) for number in range(4)]
    job = Started(tmp_path, ray_cluster, rows, "three")
    job.ready()
    os.kill(processes_titled("ray::DenoiseRank")[0], signal.SIGKILL)
    finished = job.end()
    assert finished.status == 0, "".join(job.said)
    assert set(finished.rows()) == {f"s{number}" for number in range(4)}
    assert any("lost" in line for line in job.said)


def _rows(finished: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (finished.out.parent / "manifest.jsonl").read_text().splitlines()]

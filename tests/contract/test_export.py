"""Exports opened by those they are for: Hugging Face videofolder, WebDataset, LeRobot 3.0 by its documented layout."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gamecraft_core.base.spec import ActionControl, NoControl, Start
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import export_webdataset
from gamecraft_core.dataset.commit import commit_session
from gamecraft_core.dataset.shards import publish_shard
from gamecraft_core.media.clip import decode_frames
from gamecraft_core.timeline.camera import session_camera
from jobs import export
from tests.fakes.recordings import level_of, staged_order

#: Name -> fields of its spec. Names hold dots, tasks repeat, and shards differ in length.
SESSIONS: dict[str, dict[str, Any]] = {
    "harbour.v1": {"chunks": 2, "seed": 3, "controls": (ActionControl("w", 0.5), ActionControl("left_rot", 2.0))},
    "market": {"chunks": 3, "seed": 5, "chunk_frames": 17, "prompt": "a market, at noon – ☀"},
    "tower.v2": {"chunks": 1, "seed": 9},
}
FRAMES = {"harbour.v1": 66, "market": 51, "tower.v2": 33}


def output(store: Store, sessions: dict[str, dict[str, Any]]) -> None:
    """What a run publishes: an empty shard, one of two sessions, one of the rest."""
    rows = []
    for row, (name, fields) in enumerate(sessions.items(), 2):
        rows.append(commit_session(store, staged_order(store, name, row=row, **fields)).row)
    for number, part in enumerate(([], rows[:2], rows[2:])):
        publish_shard(store, number, 3, part)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a run") / "out"
    output(open_store(str(folder)), SESSIONS)
    return folder


@pytest.fixture
def hugging_face(tmp_path: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path / "hf"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        import datasets

        datasets.disable_progress_bars()
        yield lambda *where, **options: datasets.load_dataset(*where, cache_dir=str(tmp_path / "cache"), **options)


def levels(name: str) -> list[int]:
    return [level_of(number, SESSIONS[name]["seed"]) for number in range(FRAMES[name])]


def test_videofolder_is_read_by_hugging_face(out: Path, tmp_path: Path, hugging_face: Any) -> None:
    assert export.main([str(out), "--format", "videofolder", "--to", str(tmp_path / "vf")]) == 0
    sessions = hugging_face(str(tmp_path / "vf"), split="train")
    assert sorted(sessions["session_id"][:]) == sorted(SESSIONS)
    for row in sessions:
        frames = row["video"].get_frames_in_range(0, row["num_frames"]).data
        assert frames.float().mean((1, 2, 3)).tolist() == pytest.approx(levels(row["session_id"]), abs=4)
        assert len(row["camera_to_world"]) == FRAMES[row["session_id"]]
        assert {"prompt", "chunks", "keys", "seed", "weights_fingerprint"} <= set(row)


def read_webdataset(tars: list[str]) -> list[dict[str, Any]]:
    """Every sample as WebDataset decodes it. The package leaves its files to the garbage collector."""
    import webdataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
        gc.collect()
    return samples


def test_webdataset_is_read_by_webdataset(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_webdataset, "SHARD_BYTES", 20_000)
    assert export.main([str(out), "--format", "webdataset", "--to", str(tmp_path / "wds")]) == 0
    tars = sorted(str(path) for path in (tmp_path / "wds").glob("train-*.tar"))
    assert len(tars) > 1, "samples are spread over shards"
    samples = read_webdataset(tars)
    assert [sample["json"]["session_id"] for sample in samples] == list(SESSIONS)
    for sample in samples:
        facts, name = sample["json"], sample["json"]["session_id"]
        assert len(sample["__key__"].split(".")) == 1
        (first, last) = decode_frames(sample["mp4"], [0, FRAMES[name] - 1])
        assert first.mean() == pytest.approx(levels(name)[0], abs=4)
        assert last.mean() == pytest.approx(levels(name)[-1], abs=4)
        assert sample["camera_to_world.npy"].shape == (FRAMES[name], 12)
        assert sample["mouse.npy"].shape == (FRAMES[name], 2)
        assert facts["prompt"] == SESSIONS[name].get("prompt", "a quiet harbour")
        assert len(facts["keys"]) == facts["num_frames"] == FRAMES[name]


@pytest.fixture(scope="module")
def lerobot(out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lerobot") / "set"
    assert export.main([str(out), "--format", "lerobot", "--to", str(folder)]) == 0
    return folder


def test_lerobot_info_describes_what_is_there(lerobot: Path) -> None:
    info = json.loads((lerobot / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v3.0", 25, {"train": "0:3"})
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 150, 2)
    schema = pq.read_schema(lerobot / info["data_path"].format(chunk_index=0, file_index=0))
    columns = {name: feature for name, feature in info["features"].items() if feature["dtype"] != "video"}
    assert set(schema.names) == set(columns)
    for name, feature in columns.items():
        kind = schema.field(name).type
        if feature["shape"] == [1]:
            assert str(kind) == {"float32": "float", "int64": "int64"}[feature["dtype"]]
        else:
            assert [kind.list_size] == feature["shape"] == [len(feature["names"])]
    stats = json.loads((lerobot / "meta/stats.json").read_text())
    for name in ("observation.state", "action", "observation.images.main"):
        assert set(stats[name]) == {"min", "max", "mean", "std", "count"}
    assert np.shape(stats["observation.images.main"]["mean"]) == (3, 1, 1)


def test_lerobot_frames_follow_from_the_episodes_table(lerobot: Path) -> None:
    info = json.loads((lerobot / "meta/info.json").read_text())
    episodes = pq.ParquetDataset(lerobot / "meta/episodes").read().to_pylist()
    assert [episode["session_id"] for episode in episodes] == list(SESSIONS)
    expected = 0
    for number, episode in enumerate(episodes):
        name = episode["session_id"]
        assert (episode["episode_index"], episode["length"]) == (number, FRAMES[name])
        assert (episode["dataset_from_index"], episode["dataset_to_index"]) == (expected, expected + FRAMES[name])
        place = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
        table = pq.read_table(lerobot / info["data_path"].format(**place), filters=[("episode_index", "==", number)])
        assert table["index"].to_pylist() == list(range(expected, expected + FRAMES[name]))
        assert table["frame_index"].to_pylist() == list(range(FRAMES[name]))
        assert np.allclose(table["timestamp"].to_numpy(), np.arange(FRAMES[name]) / 25)
        key = "videos/observation.images.main"
        place = {"chunk_index": episode[f"{key}/chunk_index"], "file_index": episode[f"{key}/file_index"]}
        video = (lerobot / info["video_path"].format(video_key="observation.images.main", **place)).read_bytes()
        (last,) = decode_frames(video, [FRAMES[name] - 1])
        assert last.mean() == pytest.approx(levels(name)[-1], abs=4)
        assert (episode[f"{key}/from_timestamp"], episode[f"{key}/to_timestamp"]) == (0.0, FRAMES[name] / 25)
        expected += FRAMES[name]


def test_lerobot_state_and_action_are_the_sessions_camera_and_controls(lerobot: Path) -> None:
    data = pq.read_table(lerobot / "data/chunk-000/file-000.parquet", filters=[("episode_index", "==", 0)])
    poses, _ = session_camera(SESSIONS["harbour.v1"]["controls"], 33, 32, 48)
    assert np.array_equal(np.array(data["observation.state"].to_pylist(), np.float32), poses.reshape(66, 12))
    action = np.array(data["action"].to_pylist())
    assert action[:33].tolist() == [[1, 0, 0, 0, 0, 0]] * 33
    assert action[33:, :4].sum() == 0
    assert action[33:, 4].sum() == pytest.approx(-2.0), "degrees: right is positive"


def test_lerobot_tasks_are_an_index_as_pandas_reads_it(lerobot: Path) -> None:
    import pandas

    tasks = pandas.read_parquet(lerobot / "meta/tasks.parquet")
    assert list(tasks.index) == ["a quiet harbour", "a market, at noon – ☀"]
    assert list(tasks["task_index"]) == [0, 1]
    assert tasks.iloc[1].name == "a market, at noon – ☀"


def test_lerobot_takes_one_size_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"a": {"chunks": 1}, "b": {"chunks": 1, "height": 48, "width": 80}, "c": {"chunks": 1}}
    output(open_store(str(tmp_path / "out")), sizes)
    command = [str(tmp_path / "out"), "--format", "lerobot", "--to"]
    assert export.main([*command, str(tmp_path / "all")]) == 2
    assert "32x48 and 48x80 (export one size at a time with --size HxW)" in capsys.readouterr().err
    assert not (tmp_path / "all/meta/info.json").exists()
    assert export.main([*command, str(tmp_path / "small"), "--size", "32x48"]) == 0
    assert "2 sessions, 66 frames" in (said := capsys.readouterr().out)
    assert "1 of other sizes or without a camera left out" in said
    assert export.main([*command, str(tmp_path / "none"), "--size", "16x16"]) == 2
    assert "no published session of 16x16" in capsys.readouterr().err


def test_sessions_without_a_camera_are_exported_but_for_lerobot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {"chunks": 1, "controls": (NoControl(),), "start": Start("none", "")}
    output(open_store(str(tmp_path / "out")), {"whole": whole, "walk": {"chunks": 1}})
    output(open_store(str(tmp_path / "wholes")), {"whole": whole})
    for form, sessions in (("videofolder", 2), ("webdataset", 2), ("lerobot", 1)):
        assert export.main([str(tmp_path / "out"), "--format", form, "--to", str(tmp_path / form)]) == 0
        said = capsys.readouterr().out
        assert f"{sessions} sessions, {33 * sessions} frames" in said
        assert ("1 of other sizes or without a camera left out" in said) == (form == "lerobot")
    (sample, _) = read_webdataset([str(tmp_path / "webdataset/train-000000.tar")])
    assert (sample["json"]["session_id"], len(sample["camera_to_world.npy"])) == ("whole", 0)
    assert export.main([str(tmp_path / "wholes"), "--format", "lerobot", "--to", str(tmp_path / "none")]) == 2
    assert "no published session with a camera" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(out), "--format", "webdataset", "--to", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert export.main([str(tmp_path / "nowhere"), "--format", "webdataset", "--to", str(tmp_path / "x")]) == 2
    assert "no published session" in capsys.readouterr().err
    for wrong in (["--format", "zip"], ["--format", "lerobot", "--size", "big"]):
        with pytest.raises(SystemExit) as ended:
            export.main([str(out), *wrong])
        assert ended.value.code == 2


@pytest.mark.service
def test_an_output_on_s3_is_exported_to_s3(rgw_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", rgw_server.endpoint)
    root = rgw_server.new_root()
    output(open_store(root), {"a": {"chunks": 1}})
    assert export.main([root, "--format", "videofolder"]) == 0
    assert set(open_store(f"{root}-videofolder").list("")) == {"train/00000/a.mp4", "train/00000/metadata.parquet"}

"""A dataset as the job leaves it, opened by those who will train on it: Hugging Face datasets and pyarrow.dataset.

The output holds everything a run writes, so that no other file confuses a reader, and its first slice is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest

from gamecraft_core.base.spec import ActionControl
from gamecraft_core.base.store import open_store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.claim import claim, finish
from gamecraft_core.dataset.commit import commit_session, put_latents
from gamecraft_core.dataset.errors_table import ErrorRow, write_errors
from gamecraft_core.dataset.schema import CONVENTIONS, SESSION_SCHEMA
from gamecraft_core.dataset.shards import publish_shard
from gamecraft_core.media.contact_sheet import SheetRow, contact_sheet, sheet_frames
from gamecraft_core.timeline.camera import session_camera
from tests.fakes.recordings import level_of, staged_order

#: Name -> fields of its spec. 17-frame chunks stand beside 33-frame ones, and sizes differ.
SESSIONS: dict[str, dict[str, Any]] = {
    "harbour": {"chunks": 2, "seed": 3},
    "market": {"chunks": 3, "seed": 5, "chunk_frames": 17, "height": 48, "width": 80},
    "tower": {"chunks": 1, "seed": 9, "controls": (ActionControl("right_rot", 2.0),)},
}
FRAMES = {"harbour": 66, "market": 51, "tower": 33}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole output folder: three shards (none, two and one sessions), and every other file of a run."""
    folder = tmp_path_factory.mktemp("an output") / "out"
    store = open_store(str(folder))
    run = {"run_id": "r", "identity": {"manifest": "m"}}
    claim(store, run)
    results = {}
    for row, (name, fields) in enumerate(SESSIONS.items(), 2):
        results[name] = commit_session(store, staged_order(store, name, row=row, **fields))
    publish_shard(store, 0, 3, [])
    publish_shard(store, 1, 3, [results["harbour"].row, results["market"].row])
    publish_shard(store, 2, 3, [results["tower"].row])
    put_latents(store, "harbour", 0, np.zeros((16, 9, 4, 6), np.float32))
    error = ErrorRow(row=1, session_id="x", field="image", stage="manifest", reason="missing", remedy="look")
    write_errors(store, [error])
    store.put(layout.failure_key("x"), b"{}")
    store.put(layout.TIMELINE, b'{"traceEvents": []}')
    sheet = [
        SheetRow(name, "", sheet_frames(store.get(done.video_key), FRAMES[name])) for name, done in results.items()
    ]
    store.put(layout.CONTACT_SHEET, contact_sheet(sheet))
    finish(store, run | {"counts": {"committed": 3}})
    return folder


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """``load_dataset`` with its caches in a temporary folder and no way to the network."""
    home = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))
        patch.setenv("HF_HUB_OFFLINE", "1")
        import datasets

        datasets.disable_progress_bars()
        yield lambda path, **options: datasets.load_dataset(str(path), cache_dir=str(home / "cache"), **options)


def test_hugging_face_reads_every_row_with_its_features(output: Path, hugging_face: Any) -> None:
    from datasets import Features, Video

    sessions = hugging_face(output, split="train")
    assert sessions["session_id"][:] == list(SESSIONS)
    assert sessions["num_frames"][:] == list(FRAMES.values())
    assert isinstance(sessions.features["video"], Video)
    assert sessions.features == Features.from_arrow_schema(SESSION_SCHEMA)
    assert sessions.features.arrow_schema.equals(SESSION_SCHEMA)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_decodes_the_videos(output: Path, hugging_face: Any, streaming: bool) -> None:
    for row in hugging_face(output, split="train", streaming=streaming):
        video, name = row["video"], row["session_id"]
        frames = video.get_frames_in_range(0, row["num_frames"])
        assert tuple(frames.data.shape) == (FRAMES[name], 3, row["height"], row["width"])
        assert len(video) == FRAMES[name]
        assert video.metadata.average_fps == row["fps"] == 25
        assert frames.pts_seconds.tolist() == pytest.approx([number / 25 for number in range(FRAMES[name])])
        expected = [level_of(number, SESSIONS[name]["seed"]) for number in range(FRAMES[name])]
        assert frames.data.float().mean((1, 2, 3)).tolist() == pytest.approx(expected, abs=4)


def test_hugging_face_gives_numbers_for_the_camera(output: Path, hugging_face: Any) -> None:
    market = hugging_face(output, split="train").select_columns(["camera_to_world", "mouse"]).with_format("numpy")[1]
    assert market["camera_to_world"].shape == (51, 12)
    assert market["camera_to_world"].dtype == np.float32
    assert market["mouse"].shape == (51, 2)


def test_pyarrow_reads_the_same_rows(output: Path) -> None:
    data = pyarrow.dataset.dataset(str(output / "data"))
    assert data.schema.equals(SESSION_SCHEMA)
    assert json.loads(data.schema.metadata[b"framelane"]) == CONVENTIONS
    assert data.count_rows() == 3
    for row in data.to_table().to_pylist():
        name, count = row["session_id"], FRAMES[row["session_id"]]
        assert {len(row[column]) for column in ("keys", "mouse", "camera_to_world", "intrinsics")} == {count}
        assert [chunk["index"] for chunk in row["chunks"]] == list(range(SESSIONS[name]["chunks"]))
        assert row["chunks"][-1]["end"] == row["num_frames"] == count
        assert (output / row["video_path"]).stat().st_size == row["video_bytes"]
        assert row["video"] == {"bytes": None, "path": str(output / row["video_path"])}


def test_pyarrow_reads_the_poses_that_were_asked_for(output: Path) -> None:
    data = pyarrow.dataset.dataset(str(output / "data"))
    found = data.to_table(
        columns=["camera_to_world", "intrinsics"], filter=pyarrow.dataset.field("session_id") == "tower"
    )
    poses, lenses = session_camera(SESSIONS["tower"]["controls"], 33, 32, 48)
    assert np.array_equal(np.array(found["camera_to_world"][0].as_py(), np.float32).reshape(-1, 3, 4), poses)
    assert np.array_equal(np.array(found["intrinsics"][0].as_py(), np.float32), lenses)


def test_the_root_holds_what_is_promised_and_no_staged_chunk(output: Path) -> None:
    promised = {"data", "videos", "errors.parquet", "run.json", "timeline.json", "contact_sheet.png", "_commits"}
    assert promised <= {path.name for path in output.iterdir()}
    assert not [path for path in (output / "_staging").rglob("*") if path.is_file()]
    errors = pyarrow.dataset.dataset(str(output / "errors.parquet")).to_table().to_pylist()
    assert [(error["row"], error["field"]) for error in errors] == [(1, "image")]

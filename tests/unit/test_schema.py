"""A session's row: the columns promised, values of the right length and place, conventions in the metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gamecraft_core.base.messages import STAGES, CommitOrder
from gamecraft_core.base.spec import ActionControl, MotionControl, PoseControl
from gamecraft_core.base.store import open_store
from gamecraft_core.dataset.rows import build_row, read_table
from gamecraft_core.dataset.schema import CONVENTIONS, SESSION_SCHEMA, TIMINGS, hf_features
from tests.fakes.recordings import staged_order

CONTROLS = (ActionControl("w", 0.5), ActionControl("left_rot", 3.0))


@pytest.fixture
def order() -> CommitOrder:
    return staged_order(open_store("memory://schema"), "s", controls=CONTROLS, row=3, chunk_frames=17)


def row_of(order: CommitOrder) -> dict[str, Any]:
    row = build_row(order, video_key="videos/k.mp4", video_uri="s3://b/videos/k.mp4", video_sha256="k", video_bytes=9)
    values: dict[str, Any] = read_table(row).to_pylist()[0]
    return values


def test_the_promised_columns_come_first() -> None:
    promised = ["session_id", "preset", "prompt", "num_frames", "fps", "video", "video_path"]
    assert SESSION_SCHEMA.names[: len(promised)] == promised
    chunk = SESSION_SCHEMA.field("chunks").type.value_type
    assert [field.name for field in chunk] == [
        *("index", "start", "end", "control", "seed", "sp_degree", "timings"),
        *("latents_uri", "latents_sha256", "fragment_sha256"),
    ]
    assert [field.name for field in TIMINGS] == ["queue", *STAGES]


def test_values_of_a_row(order: CommitOrder) -> None:
    row = row_of(order)
    assert (row["session_id"], row["row"], row["num_frames"], row["fps"]) == ("s", 3, 34, 25)
    assert row["video"] == {"bytes": None, "path": "s3://b/videos/k.mp4"}
    assert row["video_path"] == "videos/k.mp4"
    assert {len(row[name]) for name in ("keys", "mouse", "camera_to_world", "intrinsics")} == {34}
    assert row["keys"][:17] == [["w"]] * 17
    assert row["mouse"][17:] == [pytest.approx([-3 / 17, 0])] * 17
    assert [(chunk["start"], chunk["end"]) for chunk in row["chunks"]] == [(0, 17), (17, 34)]
    none = {"action": None, "speed": None, "poses": None, "keys": None, "mouse": None}
    assert row["chunks"][1]["control"] == none | {"action": "left_rot", "speed": 3.0}
    assert row["chunks"][0]["timings"] == dict.fromkeys(STAGES) | {"queue": 0.5, "denoise": 1.25, "decode": 0.25}
    assert (row["steps"], row["sp_degree"], row["status"]) == (2, 1, "committed")


def test_a_chunks_own_poses_come_back_as_the_metadata_says(order: CommitOrder) -> None:
    pairs = zip(np.array(row_of(order)["camera_to_world"]).reshape(-1, 3, 4), [[[0, 0, 0, 1]]] * 34, strict=True)
    poses = np.stack([np.concatenate(pair) for pair in pairs])
    assert poses[17][2, 3] == pytest.approx(5)  # speed 0.5, times 10, all of it done where the next chunk starts
    own = np.linalg.inv(poses[17]) @ poses[17:]
    angle = np.radians(3 * 16 / 17)
    assert own[0] == pytest.approx(np.eye(4), abs=1e-6)
    assert own[16][:, 2] == pytest.approx([-np.sin(angle), 0, np.cos(angle), 0], abs=1e-5)  # z, forward, went left


def test_a_folders_video_is_named_by_plain_path(order: CommitOrder) -> None:
    uri = "file:///data/my runs/videos/k.mp4"
    row = build_row(order, video_key="videos/k.mp4", video_uri=uri, video_sha256="k", video_bytes=9)
    assert read_table(row)["video"][0].as_py()["path"] == "/data/my runs/videos/k.mp4"


def test_a_pose_path_is_recorded_by_name() -> None:
    pose = (0.0, 0.5, 0.9, 0.5, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    control = PoseControl("paths/turn.txt", (pose,) * 33)
    row = row_of(staged_order(open_store("memory://schema"), "p", controls=(control,)))
    assert row["chunks"][0]["control"]["poses"] == "paths/turn.txt"
    assert row["keys"] == [[]] * 33


def test_keys_and_mouse_stand_in_the_record() -> None:
    control = MotionControl((("w", 0.5), ("left_rot", 1.0)), (0.5, 0.0))
    row = row_of(staged_order(open_store("memory://schema"), "m", controls=(control,)))
    found = row["chunks"][0]["control"]
    assert found["keys"] == [{"action": "w", "speed": 0.5}, {"action": "left_rot", "speed": 1.0}]
    assert found["mouse"] == [0.5, 0.0]
    assert row["keys"] == [["w"]] * 33


def test_metadata_travels_in_the_file(order: CommitOrder) -> None:
    row = build_row(order, video_key="v", video_uri="v", video_sha256="v", video_bytes=1)
    schema = pq.read_schema(pa.BufferReader(row))
    assert schema.equals(SESSION_SCHEMA)
    assert schema.metadata == SESSION_SCHEMA.metadata
    assert json.loads(schema.metadata[b"framelane"]) == CONVENTIONS
    assert "OpenCV" in CONVENTIONS["camera_to_world"]  # type: ignore[operator]


def test_features_follow_the_arrow_types() -> None:
    features = hf_features(SESSION_SCHEMA)
    assert list(features) == SESSION_SCHEMA.names
    assert features["video"] == {"_type": "Video"}
    assert features["guidance"] == {"dtype": "float64", "_type": "Value"}
    twelve = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 12, "_type": "List"}
    assert features["camera_to_world"] == {"feature": twelve, "_type": "List"}
    assert features["chunks"]["feature"]["control"]["speed"] == {"dtype": "float64", "_type": "Value"}


def test_equal_orders_give_equal_bytes(order: CommitOrder) -> None:
    facts: dict[str, Any] = {"video_key": "v", "video_uri": "v", "video_sha256": "v", "video_bytes": 1}
    assert build_row(order, **facts) == build_row(order, **facts)


def test_mistakes_of_the_caller_are_loud(order: CommitOrder) -> None:
    first = order.chunks[0]
    with pytest.raises(ValueError, match="do not make 34 frames"):
        row_of(replace(order, chunks=order.chunks[:1]))
    with pytest.raises(ValueError, match="do not make"):
        row_of(replace(order, chunks=(replace(first, end=33), order.chunks[1])))
    with pytest.raises(ValueError, match="unknown timings"):
        row_of(replace(order, chunks=(replace(first, timings={"upload": 1.0}), order.chunks[1])))

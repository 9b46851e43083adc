"""LeRobot's dataset format, version 3.0: a session is an episode, its prompt the task, its controls the action.

``observation.state`` is the camera (the 3x4 camera-to-world matrix, row by row), ``action`` the keys held (0 or 1) and
the degrees turned in a frame. Every episode has a video file of its own, which the format allows. A dataset has one
frame rate and one size; an output with several is exported size by size. Sessions without a camera are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.store import Store
from gamecraft_core.dataset.export import Source
from gamecraft_core.dataset.lerobot_stats import Stats
from gamecraft_core.dataset.rows import table_bytes
from gamecraft_core.media.clip import decode_frames

VIDEO = "observation.images.main"
KEYS = ("w", "a", "s", "d")

_FILES_A_CHUNK = 1000
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_POSE = [f"{axis}.{column}" for axis in "xyz" for column in ("right", "down", "forward", "position")]

Vectors = dict[str, npt.NDArray[np.float32]]


@dataclass(slots=True)
class _Dataset:
    """What has been written so far; ``finish`` needs it for the files below ``meta/``."""

    target: Store
    fps: int
    height: int
    width: int
    episodes: int = 0
    frames: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    stats: Stats = field(default_factory=Stats)

    def write_shard(self, number: int, source: Source, table: pa.Table) -> None:
        """One source shard becomes one file of frames and one file of episodes."""
        frames, episodes = [], []
        for position in range(table.num_rows):
            row = table.slice(position, 1).to_pylist()[0]
            if (row["fps"], row["height"], row["width"]) != (self.fps, self.height, self.width):
                raise UsageError(
                    f"sessions differ in size: {self.height}x{self.width} and {row['height']}x{row['width']}",
                    field="format",
                    remedy="export one size at a time with --size HxW",
                )
            frames.append(self._frames(row))
            episodes.append(self._episode(row, number, source.video(row)))
        self.target.put(f"data/{_place(number)}.parquet", table_bytes(pa.concat_tables(frames)))
        self.target.put(f"meta/episodes/{_place(number)}.parquet", table_bytes(pa.Table.from_pylist(episodes)))

    def _frames(self, row: dict[str, Any]) -> pa.Table:
        count, task = row["num_frames"], self.tasks.setdefault(row["prompt"], len(self.tasks))
        vectors = _vectors(row)
        for name, values in vectors.items():
            self.stats.add(name, values)
        numbers = np.arange(count)
        columns = {name: _fixed(values) for name, values in vectors.items()}
        columns |= {
            "timestamp": pa.array((numbers / self.fps).astype(np.float32)),
            "frame_index": pa.array(numbers, pa.int64()),
            "episode_index": pa.array(np.full(count, self.episodes), pa.int64()),
            "index": pa.array(self.frames + numbers, pa.int64()),
            "task_index": pa.array(np.full(count, task), pa.int64()),
        }
        return pa.table(columns)

    def _episode(self, row: dict[str, Any], shard: int, video: bytes) -> dict[str, Any]:
        """Store the episode's video; return its row of the episodes table."""
        number, count = self.episodes, row["num_frames"]
        self.target.put(f"videos/{VIDEO}/{_place(number)}.mp4", video)
        pictures = np.stack(decode_frames(video, sorted({0, count // 2, count - 1})))
        self.stats.add_pictures(VIDEO, pictures)
        episode = {
            "episode_index": number,
            "tasks": [row["prompt"]],
            "length": count,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + count,
            **_indexes("data", shard),
            **_indexes(f"videos/{VIDEO}", number),
            f"videos/{VIDEO}/from_timestamp": 0.0,
            f"videos/{VIDEO}/to_timestamp": count / self.fps,
            **_indexes("meta/episodes", shard),
            "session_id": row["session_id"],
        }
        self.episodes += 1
        self.frames += count
        return episode

    def finish(self) -> None:
        """The files that make it a dataset, ``info.json`` last."""
        self.target.put("meta/tasks.parquet", table_bytes(_tasks(list(self.tasks))))
        self.target.put("meta/stats.json", json.dumps(self.stats.result(), indent=1).encode())
        info = {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": _FILES_A_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": f"data/{_FILE}.parquet",
            "video_path": f"videos/{{video_key}}/{_FILE}.mp4",
            "features": _features(self.fps, self.height, self.width),
        }
        self.target.put("meta/info.json", json.dumps(info, indent=1).encode())


def write(source: Source, target: Store) -> None:
    """Write every session of ``source`` as one episode."""
    made: _Dataset | None = None
    for number, table in enumerate(source.shards()):
        if made is None:
            first = {name: table[name][0].as_py() for name in ("fps", "height", "width")}
            made = _Dataset(target, **first)
        made.write_shard(number, source, table)
    if made is not None:
        made.finish()


def _place(number: int) -> str:
    return _FILE.format(chunk_index=number // _FILES_A_CHUNK, file_index=number % _FILES_A_CHUNK)


def _indexes(prefix: str, number: int) -> dict[str, int]:
    return {f"{prefix}/chunk_index": number // _FILES_A_CHUNK, f"{prefix}/file_index": number % _FILES_A_CHUNK}


def _vectors(row: dict[str, Any]) -> Vectors:
    """The per-frame arrays of a session, [frames, k]."""
    held = np.array([[key in keys for key in KEYS] for keys in row["keys"]], np.float32)
    return {
        "observation.state": np.array(row["camera_to_world"], np.float32),
        "observation.intrinsics": np.array(row["intrinsics"], np.float32),
        "action": np.concatenate([held, np.array(row["mouse"], np.float32)], axis=1),
    }


def _fixed(values: npt.NDArray[np.float32]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _tasks(tasks: list[str]) -> pa.Table:
    """Task texts as the index of a pandas frame, which is how the format's readers look them up."""
    column = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **column},
            {"name": "task", "field_name": "task", **text},
        ],
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": tasks})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _features(fps: int, height: int, width: int) -> dict[str, Any]:
    return dict(_feature_items(fps, height, width))


def _feature_items(fps: int, height: int, width: int) -> Iterator[tuple[str, dict[str, Any]]]:
    video = {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
    shape = [height, width, 3]
    yield VIDEO, {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"], "info": video}
    yield "observation.state", {"dtype": "float32", "shape": [12], "names": _POSE}
    yield "observation.intrinsics", {"dtype": "float32", "shape": [4], "names": ["fx", "fy", "cx", "cy"]}
    yield "action", {"dtype": "float32", "shape": [6], "names": [*KEYS, "turn_right", "turn_up"]}
    yield "timestamp", {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        yield name, {"dtype": "int64", "shape": [1], "names": None}

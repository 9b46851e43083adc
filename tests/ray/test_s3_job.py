"""A whole job to a folder and to a real S3 server, inputs included, and back through the four readers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from gamecraft_core.base.store import Store, open_store
from jobs.config import load_preset
from jobs.synthesize import main
from tests.fakes.checkpoints import write_official
from tests.ray.runs import INPUTS, SMALL
from tests.servers.cluster import RayCluster
from tests.servers.s3 import ACCESS_KEY, SECRET_KEY, S3Server

pytestmark = pytest.mark.ray

#: Two chunks each: an image, a guided image of another size, a clip, a pose file; and two rows that cannot be.
ROWS: list[dict[str, Any]] = [
    {"session_id": "walk", "image": "in/harbour.png", "actions": "w d", "seed": 1},
    {"session_id": "wide", "image": "in/forest.png", "actions": "left_rot:1 s", "width": 80, "guidance": 2.0},
    {"session_id": "gone", "image": "in/none.png", "actions": "w"},
    {"session_id": "clip", "video": "in/balloons.mp4", "actions": "a w", "chunk_frames": 17},
    {"session_id": "torn", "image": "in/torn.png", "actions": "w"},
    {"session_id": "arc", "image": "in/harbour.png", "actions": "poses:in/arc.txt w"},
]
FRAMES = {"walk": 66, "wide": 66, "clip": 34, "arc": 66}
WIDTHS = {"walk": 48, "wide": 80, "clip": 48, "arc": 48}

#: What each kind of output held: videos' digests by session.
SEEN: list[dict[str, str]] = []


@dataclass(frozen=True)
class Output:
    """A finished output, and what readers other than ours need to open it. ``again`` repeats the command."""

    store: Store
    again: Callable[[], int]
    storage_options: dict[str, Any] = field(default_factory=dict)
    arrow: pyarrow.fs.FileSystem = None

    @property
    def data(self) -> str:
        """``OUT/data`` as pyarrow and Ray take it beside their filesystem."""
        return f"{self.store.root}/data".partition("://")[2]


def inputs(store: Store) -> None:
    """The job's manifest and everything it names, put into ``store``."""
    for name in ("harbour.png", "forest.png", "balloons.mp4", "arc.txt"):
        store.put(f"in/{name}", (INPUTS / name).read_bytes())
    store.put("in/torn.png", (INPUTS / "harbour.png").read_bytes()[:400])
    lines = [json.dumps({"prompt": f"A place called {row['session_id']}."} | row) for row in ROWS]
    store.put("manifest.jsonl", "\n".join(lines).encode())


def upload_weights(store: Store, folder: Path) -> list[str]:
    """Put a checkpoint in the published layout, of the numbers that the preset draws, into ``store``; the options."""
    official = write_official(load_preset("tiny-gamecraft"), folder)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(f"weights/{path.relative_to(folder)}", path.read_bytes())
    return [word.replace(str(folder), store.uri("weights")) for word in official.sets]


def run(source: Store, out: str, *options: str) -> int:
    argv = ["--preset", "tiny-gamecraft", "--manifest", source.uri("manifest.jsonl"), "--out", out, *options]
    argv += ["--fleet", "laptop", "--metrics-port", "0", "--keep-latents", "--set", "output.rows_per_shard=3"]
    for setting in SMALL:
        argv += ["--set", setting]
    return main(argv)


@pytest.fixture(scope="module", params=["folder", pytest.param("s3", marks=pytest.mark.service)])
def output(
    request: pytest.FixtureRequest, ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Output]:
    """The output of a whole job, in a folder or on the real S3 server; there inputs and weights come from S3 too."""
    if request.param == "folder":
        source = open_store(str(tmp_path_factory.mktemp("source")))
        out = str(tmp_path_factory.mktemp("an output") / "out")
        inputs(source)
        assert run(source, out) == 3
        yield Output(open_store(out), partial(run, source, out), arrow=pyarrow.fs.LocalFileSystem())
        return
    server: S3Server = request.getfixturevalue("rgw_server")
    endpoint = {"endpoint_url": server.endpoint}
    source, out = open_store(server.new_root(), endpoint), server.new_root()
    inputs(source)
    weights = upload_weights(source, tmp_path_factory.mktemp("official"))
    again = partial(run, source, out, "--set", f"store.endpoint_url={server.endpoint}", *weights)
    assert again() == 3
    arrow = pyarrow.fs.S3FileSystem(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_override=server.endpoint, region="us-east-1"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield Output(open_store(out), again, {"endpoint_url": server.endpoint}, arrow)


def test_everything_promised_is_there_and_bad_rows_are_listed(output: Output) -> None:
    store = output.store
    keys = set(store.list(""))
    assert {"run.json", "errors.parquet", "timeline.json", "contact_sheet.png"} <= keys
    assert [key for key in sorted(keys) if key.startswith("data/")] == [
        f"data/train-{number:05d}-of-00002.parquet" for number in range(2)
    ]
    assert not [key for key in keys if key.startswith("_staging/")]
    counts = json.loads(store.get("run.json"))["counts"]
    assert (counts["rows"], counts["committed"], counts["failed"], counts["remaining"]) == (6, 4, 2, 0)
    errors = pq.read_table(pyarrow.BufferReader(store.get("errors.parquet"))).to_pylist()
    assert [(error["row"], error["session_id"], error["field"]) for error in errors] == [
        (3, "gone", "image"),
        (5, "torn", "image"),
    ]


def test_where_things_lie_changes_no_bit(output: Output) -> None:
    """Drawn weights and a folder, or the same numbers from files on S3 and an output there: one dataset."""
    table = pyarrow.dataset.dataset(output.data, filesystem=output.arrow).to_table()
    found = {row["session_id"]: row["video_sha256"] for row in table.to_pylist()}
    SEEN.append(found)
    assert all(other == found for other in SEEN)


def test_hugging_face_decodes_the_videos(output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    # Offline mode, which is fixed when the package is imported, would forbid s3:// too.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", not output.storage_options)
    if output.storage_options:
        where: tuple[str, ...] = ("parquet",)
        options: dict[str, Any] = {
            "data_files": f"{output.store.root}/data/*.parquet",
            "storage_options": {**output.storage_options},  # a copy: it is added to
        }
    else:
        where, options = (output.store.root.removeprefix("file://"),), {}
    sessions = datasets.load_dataset(*where, split="train", cache_dir=str(tmp_path / "cache"), **options)
    assert {row["session_id"]: row["num_frames"] for row in sessions.remove_columns("video")} == FRAMES
    for row in sessions:
        frames = row["video"].get_frames_in_range(0, row["num_frames"]).data
        assert tuple(frames.shape) == (FRAMES[row["session_id"]], 3, 32, WIDTHS[row["session_id"]])
        assert frames.float().std() > 1, "pictures, not one colour"


def test_pyarrow_dataset_reads_the_rows_and_every_named_object_is_there(output: Output) -> None:
    rows = pyarrow.dataset.dataset(output.data, filesystem=output.arrow).to_table().to_pylist()
    assert {row["session_id"]: row["num_frames"] for row in rows} == FRAMES
    root = output.store.root
    for row in rows:
        assert row["video"]["path"] == output.store.uri(row["video_path"]).removeprefix("file://")
        assert len(output.store.get(row["video_path"])) == row["video_bytes"]
        assert {len(row[name]) for name in ("keys", "mouse", "camera_to_world", "intrinsics")} == {row["num_frames"]}
        for chunk in row["chunks"]:
            assert chunk["latents_uri"].startswith(f"{root}/latents/")
            latents = output.store.get(chunk["latents_uri"].removeprefix(f"{root}/"))
            assert hashlib.sha256(latents).hexdigest() == chunk["latents_sha256"]
            assert np.isfinite(np.frombuffer(latents, "<f4")).all()


def test_duckdb_queries_the_rows(output: Output) -> None:
    import duckdb

    with duckdb.connect() as connection:
        if output.storage_options:
            connection.register_filesystem(fsspec.filesystem("s3", **output.storage_options))
        pattern = f"{output.store.root.removeprefix('file://')}/data/*.parquet"
        found = connection.execute(
            "SELECT session_id, num_frames, len(camera_to_world), chunks[1].control.action, "
            "chunks[2].timings.denoise > 0 FROM read_parquet($1) ORDER BY 1",
            [pattern],
        ).fetchall()
    first = {"walk": "w", "wide": "left_rot", "clip": "a", "arc": None}
    assert found == [(name, FRAMES[name], FRAMES[name], first[name], True) for name in sorted(FRAMES)]


@pytest.mark.filterwarnings("ignore")  # Ray Data sets options of its own that it calls deprecated
def test_ray_data_reads_the_rows(output: Output) -> None:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_parquet(output.data, filesystem=output.arrow, columns=["session_id", "camera_to_world"])
    rows = {row["session_id"]: np.array(list(row["camera_to_world"])) for row in dataset.take_all()}
    assert {name: poses.shape for name, poses in rows.items()} == {name: (FRAMES[name], 12) for name in FRAMES}


def test_the_same_command_again_finds_everything_done(output: Output) -> None:
    before = {key: output.store.stat(key).version for key in output.store.list("")}
    assert output.again() == 3
    assert {key: output.store.stat(key).version for key in output.store.list("")} == before

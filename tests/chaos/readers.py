"""The four readers on one output: ``python -m tests.chaos.readers ROOT EXPECTED ANSWER [ADDRESS]`` (see ``check``).

EXPECTED is a JSON file of [frames, height, width] by session; ADDRESS the Ray cluster for ray.data, or a local one.
Writes a JSON file, ANSWER: by reader "ok", or what is wrong (a file, because the readers print what they like).
AWS_ENDPOINT_URL and keys come from the environment.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Sizes = Mapping[str, tuple[int, int, int]]


def check(root: str, expected: Sizes, address: str | None) -> dict[str, str]:
    """What each reader says of the output at ``root`` (s3://BUCKET/PREFIX)."""
    readers: dict[str, Callable[[], None]] = {
        "datasets": lambda: _datasets(root, expected),
        "pyarrow.dataset": lambda: _pyarrow(root, expected),
        "duckdb": lambda: _duckdb(root, expected),
        "ray.data": lambda: _ray_data(root, expected, address),
    }
    said = {}
    for name, reader in readers.items():
        try:
            reader()
            said[name] = "ok"
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"[:500]
    return said


class Differs(Exception):
    """The reader loads something else than was expected."""


def _same(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise Differs(f"{found!r}, not {wanted!r}")


def _datasets(root: str, expected: Sizes) -> None:
    """Every video decoded, every frame."""
    with tempfile.TemporaryDirectory(prefix="fl-hf-") as cache:
        os.environ |= {"HF_HOME": cache, "HF_HUB_OFFLINE": "1"}
        import datasets

        datasets.disable_progress_bars()
        # Offline mode, which is fixed when the package is imported, would forbid s3:// too.
        datasets.config.HF_HUB_OFFLINE = False
        options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
        files = f"{root}/data/*.parquet"
        rows = datasets.load_dataset(
            "parquet", data_files=files, storage_options=options, cache_dir=cache, split="train"
        )
        found = {}
        for row in rows:
            frames = row["video"].get_frames_in_range(0, row["num_frames"]).data
            if frames.float().std() <= 1:
                raise Differs(f"the video of {row['session_id']} is of one colour")
            found[row["session_id"]] = (frames.shape[0], *frames.shape[2:])
        _same(found, expected)
        _same(len(rows), len(expected))


def _pyarrow(root: str, expected: Sizes) -> None:
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(_path(root), filesystem=_arrow()).to_table().to_pylist()
    _same(sorted(row["session_id"] for row in rows), sorted(expected))
    for row in rows:
        lengths = {len(row[name]) for name in ("keys", "mouse", "camera_to_world", "intrinsics")}
        _same(lengths, {expected[row["session_id"]][0]})


def _duckdb(root: str, expected: Sizes) -> None:
    import duckdb
    import fsspec

    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]))
        query = "SELECT session_id, num_frames, height, width FROM read_parquet($1)"
        found = connection.execute(query, [f"{root}/data/*.parquet"]).fetchall()
    _same(sorted(found), sorted((name, *size) for name, size in expected.items()))


def _ray_data(root: str, expected: Sizes, address: str | None) -> None:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    columns = ["session_id", "num_frames"]
    rows = ray.data.read_parquet(_path(root), filesystem=_arrow(), columns=columns).take_all()
    found = sorted((row["session_id"], row["num_frames"]) for row in rows)
    _same(found, sorted((name, size[0]) for name, size in expected.items()))


def _path(root: str) -> str:
    return f"{root.removeprefix('s3://')}/data"


def _arrow() -> Any:
    import pyarrow.fs

    return pyarrow.fs.S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=os.environ["AWS_ENDPOINT_URL"],
        region=os.environ["AWS_DEFAULT_REGION"],
    )


if __name__ == "__main__":
    sizes = {name: tuple(size) for name, size in json.loads(Path(sys.argv[2]).read_text()).items()}
    said = check(sys.argv[1], sizes, sys.argv[4] if len(sys.argv) > 4 else None)
    Path(sys.argv[3]).write_text(json.dumps(said))

"""The verifier of chaos runs must be able to fail: each kind of damage, planted into a whole output, is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gamecraft_core.base.messages import FailOrder
from gamecraft_core.base.store import open_store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.commit import commit_session, fail_session, put_latents
from gamecraft_core.dataset.errors_table import ErrorRow, ErrorTable
from gamecraft_core.dataset.shards import publish_shard
from tests.chaos.bucket import Folder
from tests.chaos.verify import Expected, Row, problems, published, read_rows
from tests.fakes.recordings import staged_order, written_chunks

CHUNKS = {"harbour": 2, "market": 3, "tower": 1}
SHARD = "data/train-00000-of-00001.parquet"


def build(folder: Path) -> Path:
    """An output as a finished run leaves it: three sessions with their latents, and one that failed."""
    store = open_store(str(folder))
    records = []
    for number, (name, count) in enumerate(CHUNKS.items(), 1):
        order = staged_order(store, name, count, row=number, seed=number)
        kept = [
            put_latents(store, name, index, latents) for index, (_, _, latents) in enumerate(written_chunks(order.spec))
        ]
        chunks = [
            replace(chunk, latents_uri=store.uri(artifact.key))
            for chunk, artifact in zip(order.chunks, kept, strict=True)
        ]
        records.append(commit_session(store, replace(order, chunks=tuple(chunks))).row)
    failure = FailOrder(session_id="torn", row=4, field="image", stage="encode", reason="torn", remedy="mend it")
    fail_session(store, failure)
    errors = ErrorTable()
    errors.add(ErrorRow(row=4, session_id="torn", field="image", stage="encode", reason="torn", remedy="mend it"))
    errors.write(store)
    publish_shard(store, 0, 1, records)
    counts = {"rows": 4, "committed": 3, "failed": 1, "remaining": 0}
    store.put(layout.RUN, json.dumps({"status": "finished", "counts": counts}).encode())
    store.put(layout.TIMELINE, b"{}")
    store.put(layout.CONTACT_SHEET, b"a picture")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """The same sessions, made by another run in another place."""
    return published(Folder(str(build(tmp_path_factory.mktemp("reference")))))


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


def found(output: Path, reference: dict[str, Row]) -> list[str]:
    return problems(Folder(str(output)), Expected(CHUNKS, frozenset({"torn"}), 1, {1: reference}))


def rewrite(output: Path, key: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the rows of a Parquet file, its schema kept."""
    path = output / key
    rows = change(read_rows(path.read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)


def with_first(**changes: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [{**rows[0], **changes}, *rows[1:]]


def test_a_whole_output_has_no_problem(output: Path, reference: dict[str, Row]) -> None:
    assert found(output, reference) == []


def test_a_lost_session_is_named(output: Path, reference: dict[str, Row]) -> None:
    rewrite(output, SHARD, lambda rows: rows[1:])
    assert "session harbour is lost" in found(output, reference)


def test_a_lost_chunk_is_named(output: Path, reference: dict[str, Row]) -> None:
    def shorter(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return with_first(chunks=rows[0]["chunks"][:-1])(rows)

    for key in (SHARD, "_commits/harbour.parquet"):
        rewrite(output, key, shorter)
    assert "session harbour has chunks [0], not 2" in found(output, reference)


def test_a_duplicate_is_named(output: Path, reference: dict[str, Row]) -> None:
    rewrite(output, SHARD, lambda rows: [*rows, rows[1]])
    assert "session market is published 2 times" in found(output, reference)


def test_a_session_that_nobody_asked_for_is_named(output: Path, reference: dict[str, Row]) -> None:
    rewrite(output, SHARD, with_first(session_id="stranger"))
    assert "session stranger is published and should not be" in found(output, reference)


@pytest.mark.parametrize(
    "key",
    [
        "_staging/harbour/000000.sp1.0123456789ab.safetensors",
        "latents/harbour/000000.0123456789ab.f32",
        f"videos/{'0' * 64}.mp4",
        "videos/.tmp-1",
        "stray.txt",
    ],
)
def test_an_orphan_is_named(output: Path, reference: dict[str, Row], key: str) -> None:
    (output / key).parent.mkdir(parents=True, exist_ok=True)
    (output / key).write_bytes(b"left behind")
    assert found(output, reference) == [f"{key} is an orphan"]


@pytest.mark.parametrize("folder", ["videos", "latents/market"])
def test_a_changed_byte_is_named(output: Path, reference: dict[str, Row], folder: str) -> None:
    path = min((output / folder).iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [problem for problem in found(output, reference) if "has another sha256" in problem]


@pytest.mark.parametrize("folder", ["videos", "latents/market"])
def test_a_missing_artifact_is_named(output: Path, reference: dict[str, Row], folder: str) -> None:
    path = min((output / folder).iterdir())
    path.unlink()
    assert [problem for problem in found(output, reference) if problem.endswith("is missing")]


def test_latents_other_than_the_undisturbed_runs_are_named(output: Path, reference: dict[str, Row]) -> None:
    chunk = reference["market"]["chunks"][1]
    other = {**chunk, "latents_sha256": "0" * 64}
    market = {**reference["market"], "chunks": [reference["market"]["chunks"][0], other]}
    assert "latents_sha256 of market, chunk 1, is not the undisturbed run's at degree 1" in found(
        output, {**reference, "market": market}
    )


def test_another_video_than_the_undisturbed_runs_is_named(output: Path, reference: dict[str, Row]) -> None:
    other = {**reference, "tower": {**reference["tower"], "video_sha256": "0" * 64}}
    assert "the video of tower is not the undisturbed run's at degree 1" in found(output, other)


def test_another_prompt_than_the_undisturbed_runs_is_named(output: Path, reference: dict[str, Row]) -> None:
    other = {**reference, "tower": {**reference["tower"], "prompt": "elsewhere"}}
    assert found(output, other) == ["the row of tower differs from the undisturbed run's in ['prompt']"]


def test_a_degree_without_reference_is_named(output: Path) -> None:
    named = problems(Folder(str(output)), Expected(CHUNKS, frozenset({"torn"}), 1, {}))
    assert "session tower was made at degree 1, of which there is no reference" in named


def test_a_session_of_two_degrees_is_named(output: Path, reference: dict[str, Row]) -> None:
    def mixed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first, second = rows[0]["chunks"]
        return with_first(chunks=[first, {**second, "sp_degree": 2}])(rows)

    rewrite(output, SHARD, mixed)
    assert "session harbour was made at degrees [1, 2]" in found(output, reference)


def test_a_record_other_than_what_is_published_is_named(output: Path, reference: dict[str, Row]) -> None:
    rewrite(output, "_commits/harbour.parquet", with_first(prompt="elsewhere"))
    assert found(output, reference) == ["the record of harbour is not what is published"]


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("_commits/torn.parquet", "records: missing ['_commits/torn.parquet'], too many []"),
        ("_failures/torn.json", "failures: missing ['_failures/torn.json'], too many []"),
        (SHARD, f"shards are [], not ['{SHARD}']"),
        ("errors.parquet", "errors.parquet is missing"),
        ("run.json", "run.json is missing"),
    ],
)
def test_a_missing_record_is_named(output: Path, reference: dict[str, Row], key: str, problem: str) -> None:
    (output / key).unlink()
    assert problem in found(output, reference)


def test_a_run_that_miscounts_is_named(output: Path, reference: dict[str, Row]) -> None:
    run = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**run, "counts": {**run["counts"], "committed": 4}}))
    assert [problem for problem in found(output, reference) if problem.startswith("run.json says finished")]


def test_an_errors_table_that_says_it_twice_is_named(output: Path, reference: dict[str, Row]) -> None:
    rewrite(output, "errors.parquet", lambda rows: rows * 2)
    assert found(output, reference) == ["errors.parquet names ['torn', 'torn'], not ['torn']"]

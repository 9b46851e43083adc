"""Hundreds of malformed inputs through the manifest and the encode role: each is its own row's error, and no more."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.encode import EncodeActor
from gamecraft_core.base.errors import BadInput, FramelaneError, UsageError
from gamecraft_core.base.messages import Receipt
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.media.sandbox import Sandbox
from jobs.config import resolve
from orchestrator import orders
from orchestrator.manifest import formats
from orchestrator.manifest.manifest import Manifest
from orchestrator.manifest.rows import COLUMNS, RowErrors
from tests.fakes import malformed_files
from tests.fakes.malformed import Case, corpus, row
from tests.ray.runs import SMALL

GOOD = 3
PRESET = resolve("tiny-gamecraft", sets=SMALL).preset


@dataclass(frozen=True)
class Judged:
    """A case, and every error that its row met: (field, reason, remedy)."""

    case: Case
    errors: tuple[tuple[str, str, str], ...]


def manifest(path: Path) -> Manifest:
    return Manifest(str(path), {PRESET.name: PRESET}, PRESET.name)


@pytest.fixture(scope="module")
def encoder() -> Iterator[EncodeActor]:
    """The role itself, as a lane runs it."""
    actor = EncodeActor("encode-0", PRESET, 1, {})
    try:
        actor.warm()
        yield actor
    finally:
        actor._sandbox.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("malformed")


@pytest.fixture(scope="module")
def cases(folder: Path) -> list[Case]:
    """The manifest is made of them, and of good rows first, in the middle and last."""
    found = corpus(folder)
    lines = [case.line for case in found]
    half = len(lines) // 2
    lines = [row(session_id="good-1"), *lines[:half], row(session_id="good-2"), *lines[half:], row(session_id="good-3")]
    (folder / "manifest.jsonl").write_bytes(b"\n".join(lines))
    return found


@pytest.fixture(scope="module")
def judged(cases: list[Case], folder: Path, encoder: EncodeActor) -> list[Judged]:
    rows = [errors_of(each, encoder) for each in manifest(folder / "manifest.jsonl").rows()]
    half = 1 + len(cases) // 2
    good = [rows.pop(place) for place in (len(rows) - 1, half, 0)]
    assert good == [()] * GOOD
    return [Judged(*pair) for pair in zip(cases, rows, strict=True)]


def errors_of(row: SessionSpec | RowErrors, encoder: EncodeActor) -> tuple[tuple[str, str, str], ...]:
    """What validation, or else the encode role, has against ``row``."""
    if isinstance(row, RowErrors):
        return tuple((error.field, error.reason, error.remedy) for error in row.errors)
    answer: Receipt | FramelaneError = encoder.run(orders.encode(row))[0]
    if isinstance(answer, Receipt):
        return ()
    assert isinstance(answer, BadInput), answer
    return ((answer.field, answer.message, answer.remedy),)


def test_every_case_is_refused_by_field_with_reason_and_remedy(judged: list[Judged]) -> None:
    assert len(judged) >= 400
    for each in judged:
        assert each.errors, f"{each.case.name} was accepted"
        for field, reason, remedy in each.errors:
            about = f"{each.case.name}: {field}: {reason} ({remedy})"
            assert field.startswith(each.case.field), about
            assert field, about
            assert reason, about
            assert remedy, about
            assert len(field) <= 200, about
            assert len(reason) <= 500, about
            assert "Traceback" not in about
            assert "planted" not in reason + field, about
            about.encode()


def test_both_gates_had_something_to_do(judged: list[Judged]) -> None:
    late = [each for each in judged if any("decoded" in reason or "damaged" in reason for _, reason, _ in each.errors)]
    assert 40 <= len(late) <= len(judged) - 200


def test_the_survey_counts_them(cases: list[Case], folder: Path, judged: list[Judged]) -> None:
    survey = manifest(folder / "manifest.jsonl").survey()
    assert survey.rows == len(cases) + GOOD
    assert survey.good + survey.bad == survey.rows


def test_an_oddity_ends_soon_either_way() -> None:
    taken = 0
    with Sandbox() as sandbox:
        for name, data in malformed_files.oddities():
            started = time.monotonic()
            try:
                found = sandbox.image(data, 32, 48) if name.endswith("png") else sandbox.last_frames(data, 33, 32, 48)
            except BadInput as error:
                assert error.remedy, name  # noqa: PT017
            else:
                assert found.shape[-3:] == (32, 48, 3), name
                taken += 1
            assert time.monotonic() - started < 20, name
    assert 5 <= taken <= 15


CSV_LINES = [
    b"good.png,a,w,7,extra",
    b"good.png",
    b"good.png,a\x00b,w,\xff",
    b"good.png,\xff\xfe,w,7",
    b"good.png,a,w,NaN",
    b"good.png,a,w,True",
    b"good.png,a,w," + b"9" * 400,
    b"good.png,a,w:1e999,7",
    b'good.png,"' + b"x" * 200_000 + b'",w,7',
    b'good.png,a,"[{""action"": ""w"", ""speed"": NaN}]",7',
    b"../../../../etc/passwd,a,w,7",
    "ｇｏｏｄ.png,a,w,7".encode(),
    b"good.png,,w,7",
    b"\x89PNG\r\x1a,a,w,7",
    b"good.png," + b"x" * (5 << 20) + b",w,7",
]


def test_csv_lines_are_refused_one_by_one(folder: Path, cases: list[Case], encoder: EncodeActor) -> None:
    path = folder / "manifest.csv"
    good = b"good.png,a,w,7"
    mixed = [line for bad in CSV_LINES for line in (bad, good)]
    path.write_bytes(b"\n".join([b"image,prompt,actions,seed", *mixed]))
    rows = list(manifest(path).rows())
    found = [bool(errors_of(each, encoder)) for each in rows]
    assert found == [True, False] * len(CSV_LINES)


COLUMN_TYPES: dict[str, pa.Array] = {
    "binary": pa.array([b"\xff\xfe"]),
    "number": pa.array([7.5]),
    "not-a-number": pa.array([float("nan")]),
    "unsigned": pa.array([2**64 - 1], pa.uint64()),
    "flag": pa.array([True]),
    "date": pa.array([0], pa.timestamp("ns", "UTC")),
    "late-date": pa.array([2**62], pa.timestamp("us")),
    "duration": pa.array([1], pa.duration("s")),
    "decimal": pa.array([1], pa.decimal128(38, 0)),
    "list": pa.array([["w"]]),
    "nested": pa.array([[[[["w"]]]]]),
    "record": pa.array([{"a": 1}]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "null": pa.nulls(1),
    "not-utf-8": pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
    ),
}


@pytest.mark.parametrize("kind", COLUMN_TYPES)
def test_a_parquet_column_of_any_type_breaks_nothing(folder: Path, cases: list[Case], kind: str) -> None:
    path = folder / f"{kind}.parquet"
    good = {"image": pa.array(["good.png"]), "prompt": pa.array(["a"]), "actions": pa.array(["w"])}
    for column in COLUMNS:
        pq.write_table(pa.table(good | {column: COLUMN_TYPES[kind]}), path)
        (found,) = manifest(path).rows()
        if isinstance(found, RowErrors):
            assert all(error.field and error.reason and error.remedy for error in found.errors)


def test_a_small_parquet_file_that_unfolds_to_a_large_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_PARQUET_BYTES", 1 << 20)
    monkeypatch.setattr(formats, "MAX_PARQUET_VALUES", 1000)
    for column in (pa.array(["x" * (2 << 20)]), pa.array([[None] * 2000], pa.list_(pa.int8()))):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"prompt": column}), buffer, compression="zstd")
        assert buffer.tell() < 10_000
        with pytest.raises(UsageError, match="too large") as caught:
            list(formats.read_rows(buffer, "parquet"))
        assert caught.value.field == "manifest"


def test_a_text_that_repeats_is_held_once() -> None:
    buffer = io.BytesIO()
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 200), pa.array(["x" * (1 << 20)]))
    pq.write_table(pa.table({"prompt": text}), buffer, compression="zstd", store_schema=False)
    before = pa.total_allocated_bytes()
    peak = 0
    for found in formats.read_rows(buffer, "parquet"):
        assert len(found.cells["prompt"]) == 1 << 20
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 20 << 20


chunks = st.binary(max_size=40) | st.sampled_from(
    [
        row(),
        row(session_id="a"),
        b'{"image": ',
        b"[",
        b"\xff",
        b"\\ud800",
        b'"seed": NaN',
        b"}",
        b",",
        b"\n",
        b'"',
        b"\0",
    ]
)


@pytest.mark.usefixtures("cases")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(chunks, max_size=12), ending=st.sampled_from(["jsonl", "csv", "parquet"]))
def test_no_file_breaks_the_manifest(folder: Path, parts: list[bytes], ending: str) -> None:
    path = folder / f"any.{ending}"
    path.write_bytes(b"".join(parts))
    try:
        rows = list(manifest(path).rows())
    except UsageError as error:
        assert error.remedy  # noqa: PT017
        return
    assert [each.row for each in rows] == list(range(1, len(rows) + 1))
    for each in rows:
        if isinstance(each, RowErrors):
            assert all(error.field and error.reason and error.remedy for error in each.errors)


cells: st.SearchStrategy[Any] = st.text(max_size=30) | st.sampled_from(
    ["good.png", "w", "poses:good.txt", "1e999", "0x10", "１２", "٣", "1_000", "a\0b", "=1+1", "s3://b/../k", "[[[["]
)


@pytest.mark.usefixtures("cases")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(cells, min_size=1, max_size=5), max_size=6))
def test_no_cells_break_a_csv_manifest(folder: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["image", "prompt", "actions", "seed", "session_id"], *rows])
    path = folder / "cells.csv"
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    try:
        found = list(manifest(path).rows())
    except UsageError as error:
        assert "has no rows" in error.message  # noqa: PT017
        return
    for each in found:
        if isinstance(each, RowErrors):
            assert all(error.field and error.reason and error.remedy for error in each.errors)

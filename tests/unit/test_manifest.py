"""The manifest as a whole: three formats, row order, ids, survey, and files that are no manifest."""

from __future__ import annotations

import csv
import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.spec import ActionControl, SessionSpec
from gamecraft_core.base.store_memory import MemoryStore
from orchestrator.manifest import formats, manifest
from orchestrator.manifest.manifest import Manifest
from orchestrator.manifest.rows import RowErrors
from tests.fakes.presets import tiny_preset

ROWS: list[dict[str, Any]] = [
    {"session_id": "one", "image": "a.png", "prompt": 'a, quiet "harbour"', "actions": "w*2", "seed": 2**63 - 1},
    {"session_id": "two", "image": "a.png", "prompt": "näch", "actions": "d", "guidance": 2.5, "steps": 3},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (32, 24), (200, 90, 20)).save(tmp_path / "a.png")
    return tmp_path


def opened(path: Path | str) -> Manifest:
    return Manifest(str(path), {"tiny": tiny_preset()}, "tiny")


def write_jsonl(folder: Path, *rows: Any, name: str = "m.jsonl", start: bytes = b"") -> Path:
    path = folder / name
    path.write_bytes(start + b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows))
    return path


def write_csv(folder: Path, rows: list[dict[str, Any]], start: str = "") -> Path:
    path = folder / "m.csv"
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(start)
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    return folder / "m.parquet"


def specs(path: Path) -> list[SessionSpec]:
    rows = list(opened(path).rows())
    assert all(isinstance(row, SessionSpec) for row in rows), rows
    return [row for row in rows if isinstance(row, SessionSpec)]


def only_errors(path: Path) -> list[RowErrors]:
    return [row for row in opened(path).rows() if isinstance(row, RowErrors)]


def test_three_formats_hold_the_same_sessions(folder: Path) -> None:
    seen = [specs(write_jsonl(folder, *ROWS)), specs(write_csv(folder, ROWS))]
    listed = [row | {"actions": [{"action": row["actions"][0], "speed": None}] * len(s.controls)}
              for row, s in zip(ROWS, seen[0], strict=True)]  # fmt: skip
    columns = {name: [row.get(name) for row in listed] for name in ("guidance", "steps", *ROWS[0])}
    pq.write_table(pa.table(columns), folder / "m.parquet")
    seen.append(specs(folder / "m.parquet"))
    assert seen[0] == seen[1] == seen[2]
    assert [(s.row, s.seed, s.guidance, s.steps, s.prompt) for s in seen[0]] == [
        (1, 2**63 - 1, 1.0, 4, 'a, quiet "harbour"'),
        (2, 5, 2.5, 3, "näch"),
    ]
    assert seen[0][0].start.uri == (folder / "a.png").as_uri()
    assert seen[0][0].negative_prompt == "blurry"


def test_csv_cells_may_hold_the_list_as_json(folder: Path) -> None:
    row = {"image": "a.png", "prompt": "p", "actions": json.dumps([{"action": "s", "speed": 1}]), "seed": "7"}
    (spec,) = specs(write_csv(folder, [row]))
    assert spec.controls == (ActionControl("s", 1.0),)
    assert spec.seed == 7


def test_byte_order_mark_blank_lines_and_a_missing_last_newline(folder: Path) -> None:
    rows = specs(write_jsonl(folder, b"\n", ROWS[0], b"  \r\n", json.dumps(ROWS[1]).encode(), start=b"\xef\xbb\xbf"))
    assert [spec.row for spec in rows] == [1, 2]
    assert len(specs(write_csv(folder, ROWS, start="\ufeff"))) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"image": \n', "not readable JSON"),
        (b"[1, 2]\n", "not an object"),
        (b"NaN\n", "not an object"),
        (b'{"image": "a.png", "image": "b.png"}\n', "'image' is there twice"),
        (b'{"prompt": "\xff"}\n', "not valid UTF-8"),
        (b'{"seed": ' + b"9" * 5000 + b"}\n", "not readable JSON"),
        (b"[" * 200_000 + b"\n", "not readable JSON"),
        (b'{"prompt": "' + b"x" * formats.MAX_LINE_BYTES * 2 + b'"}\n', "longer than 4 MiB"),
    ],
)
def test_a_broken_line_is_one_bad_row_and_the_next_is_read(folder: Path, line: bytes, reason: str) -> None:
    rows = list(opened(write_jsonl(folder, ROWS[0], line, ROWS[1])).rows())
    assert [type(row) for row in rows] == [SessionSpec, RowErrors, SessionSpec]
    bad = rows[1]
    assert isinstance(bad, RowErrors)
    assert (bad.row, bad.errors[0].field) == (2, "row")
    assert reason in bad.errors[0].reason
    assert bad.errors[0].remedy


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (b"two,a.png,w,p,extra\n", "row", "5 cells and the header 4"),
        (b"two,a.png\n", "row", "2 cells and the header 4"),
        (b"two,a.png,w,\xff\xfe\n", "prompt", "not valid UTF-8"),
        (b'two,a.png,w,"' + b"x" * 200_000 + b'"\n', "row", "not readable CSV"),
        (b"x," * formats.MAX_LINE_BYTES + b"\n", "row", "cells and the header 4"),
    ],
)
def test_a_broken_csv_line_is_one_bad_row(folder: Path, line: bytes, field: str, reason: str) -> None:
    path = folder / "m.csv"
    path.write_bytes(b"session_id,image,actions,prompt\none,a.png,w,p\n" + line + b"three,a.png,w,p\n")
    rows = list(opened(path).rows())
    bad = next(row for row in rows if isinstance(row, RowErrors))
    assert (bad.errors[0].row, bad.errors[0].field) == (2, field)
    assert reason in bad.errors[0].reason
    assert [row.session_id for row in rows if isinstance(row, SessionSpec)] == ["one", "three"]


def test_a_parquet_cell_that_is_no_text_spoils_its_row_alone(folder: Path) -> None:
    names = pa.array([b"good", b"\xff\xfe"], type=pa.binary()).view(pa.string())
    table = {"image": ["a.png"] * 2, "actions": ["w"] * 2, "prompt": names}
    pq.write_table(pa.table(table), folder / "m.parquet")
    first, second = opened(folder / "m.parquet").rows()
    assert isinstance(first, SessionSpec)
    assert isinstance(second, RowErrors)
    assert "cannot be read" in second.errors[0].reason


def test_rows_of_equal_content_get_different_ids_that_do_not_change(folder: Path) -> None:
    row = {"image": "a.png", "prompt": "p", "actions": "w"}
    path = write_jsonl(folder, row, row | {"seed": 9}, row, row | {"tenant": "studio"})
    ids = [spec.session_id for spec in specs(path)]
    assert ids[2:] == [f"{ids[0]}-2", f"{ids[0]}-3"]
    assert len(set(ids)) == 4
    assert ids == [spec.session_id for spec in specs(path)]


def test_a_derived_id_makes_way_for_a_given_one(folder: Path) -> None:
    row = {"image": "a.png", "prompt": "p", "actions": "w"}
    (derived,) = [spec.session_id for spec in specs(write_jsonl(folder, row))]
    path = write_jsonl(folder, row, row | {"session_id": f"{derived}-2"}, row)
    assert [spec.session_id for spec in specs(path)] == [derived, f"{derived}-2", f"{derived}-3"]


def test_a_repeated_id_is_an_error_even_after_a_refused_row(folder: Path) -> None:
    bad = ROWS[0] | {"actions": "jump"}
    rows = list(opened(write_jsonl(folder, bad, ROWS[0], ROWS[1], ROWS[1] | {"seed": -1})).rows())
    refused = [row for row in rows if isinstance(row, RowErrors)]
    assert [(e.row, e.field) for row in refused for e in row.errors] == [
        (1, "actions[0].action"),
        (2, "session_id"),
        (4, "seed"),
        (4, "session_id"),
    ]
    assert all("earlier row" in row.errors[-1].reason for row in refused[1:])


def test_survey_counts_and_bounds_its_errors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_LISTED_ERRORS", 2)
    bad = [{"session_id": f"bad{n}", "image": "a.png", "prompt": "p", "actions": "jump"} for n in range(3)]
    survey = opened(write_jsonl(folder, *ROWS, *bad)).survey()
    assert (survey.rows, survey.good, survey.bad, survey.chunks, survey.frames) == (5, 2, 3, 3, 99)
    assert [error.row for error in survey.errors] == [3, 4]


def test_the_hash_is_of_the_bytes(folder: Path) -> None:
    path = write_jsonl(folder, *ROWS)
    assert opened(path).sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_manifest_in_a_store_names_files_beside_it(folder: Path) -> None:
    store = MemoryStore(f"memory://bucket/{uuid.uuid4().hex}")
    store.put("m.jsonl", write_jsonl(folder, *ROWS, ROWS[0] | {"session_id": "x", "image": "none.png"}).read_bytes())
    store.put("a.png", (folder / "a.png").read_bytes())
    store.put("clip.mp4", b"anything")
    rows = list(opened(store.uri("m.jsonl")).rows())
    assert [type(row) for row in rows] == [SessionSpec, SessionSpec, RowErrors]
    assert isinstance(rows[0], SessionSpec)
    assert rows[0].start.uri == store.uri("a.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no such file"),
        (".jsonl", None, "no such file"),
        ("m.jsonl", b"", "no rows"),
        ("m.jsonl", b"\n\n", "no rows"),
        ("m.csv", b"", "no rows"),
        ("m.csv", b"image,prompt\n", "no rows"),
        ("m.csv", b"image,image\n", "'image' is there twice"),
        ("m.csv", b"c," * 40 + b"\n", "too many"),
        ("m.parquet", b"", "cannot be read"),
        ("m.parquet", b"PAR1 and nothing else", "cannot be read"),
        ("m.xlsx", b"", "no known ending"),
        ("m.json", b"[]", "no known ending"),
    ],
)
def test_what_is_no_manifest_is_refused_with_a_remedy(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        list(opened(path).rows())
    assert caught.value.remedy or "twice" in message


def test_a_folder_an_unknown_scheme_and_an_absent_object_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").mkdir()
    for uri in (str(tmp_path / "m.jsonl"), "http://host/m.jsonl", "memory://bucket/none.jsonl"):
        with pytest.raises(UsageError):
            opened(uri).survey()


def test_a_cut_parquet_file_is_refused(folder: Path) -> None:
    path = write_parquet(folder, ROWS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match="cannot be read"):
        opened(path).survey()

"""What a start of the job makes of its manifest and of what earlier starts left: to run, settled, or refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gamecraft_core.base.messages import FailOrder
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import LocalStore
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.commit import commit_session, fail_session
from gamecraft_core.dataset.rows import read_table
from gamecraft_core.dataset.shards import publish_shard
from jobs.finish import Report
from jobs.run import _noted, _past, _source
from orchestrator.engine import Settled
from orchestrator.manifest.manifest import Manifest
from orchestrator.shard_book import ShardBook
from orchestrator.timeline import Timeline
from tests.fakes.presets import tiny_preset
from tests.fakes.recordings import staged_order

ROWS_PER_SHARD = 4


@dataclass
class Output:
    """A folder with a manifest, and an output that earlier starts have left."""

    folder: Path
    store: LocalStore

    def manifest(self, *rows: dict[str, Any]) -> Manifest:
        base = {"image": "a.png", "prompt": "A harbour.", "actions": "w*2"}
        lines = [json.dumps(base | row) for row in rows]
        (self.folder / "m.jsonl").write_text("\n".join(lines))
        return Manifest(str(self.folder / "m.jsonl"), {"tiny": tiny_preset()}, "tiny")

    def committed(self, *names: str) -> None:
        for name in names:
            self.store.put(layout.commit_key(name), b"a record, which nobody reads")

    def failed(self, name: str, row: int) -> None:
        order = FailOrder(session_id=name, row=row, field="image", stage="encode", reason="grey", remedy="another")
        fail_session(self.store, order)

    def start(self, manifest: Manifest) -> tuple[list[SessionSpec | Settled], Report]:
        past, rows = _past(self.store), manifest.survey().rows
        report = Report({"run_id": "r"}, rows, 0.0)
        return list(_source(manifest, past, report, ShardBook(rows, ROWS_PER_SHARD, past.published))), report

    def counts(self, report: Report) -> tuple[int, int]:
        counts = report._counts(None)
        return counts["committed"], counts["failed"]

    def errors(self, report: Report) -> list[tuple[int, str]]:
        report.write(self.store, Timeline(), finished=False)
        return [(row["row"], row["stage"]) for row in read_table(self.store.get(layout.ERRORS)).to_pylist()]


@pytest.fixture
def output(tmp_path: Path) -> Output:
    Image.new("RGB", (32, 24), (200, 90, 20)).save(tmp_path / "a.png")
    return Output(tmp_path, LocalStore(str(tmp_path / "out")))


def test_committed_rows_are_told_from_names_alone(output: Output) -> None:
    output.committed("a", "d")
    output.failed("b", 2)
    names = [{"session_id": name} for name in "abcde"]
    rows, report = output.start(output.manifest(*names, {"session_id": "f", "steps": 0}))
    assert [row if isinstance(row, Settled) else row.session_id for row in rows] == [
        Settled(1, "a", True),
        Settled(2, "b", False),
        "c",
        Settled(4, "d", True),
        "e",
        Settled(6, "f", False),
    ]
    assert report.before == (2, 2, 6)
    assert output.counts(report) == (2, 2)
    assert output.errors(report) == [(2, "encode"), (6, "validate")]


def test_a_failure_without_its_tombstone_is_not_settled_and_does_not_outlive_the_commit(output: Output) -> None:
    output.store.put(layout.failure_key("a"), b"{}")
    rows, report = output.start(output.manifest({"session_id": "a"}))
    assert [row.session_id for row in rows] == ["a"]
    assert output.counts(report) == (0, 0)
    output.committed("a")
    _, later = output.start(output.manifest({"session_id": "a"}))
    assert output.counts(later) == (1, 0)


def test_a_failure_that_lost_against_a_commit_does_not_hide_the_session(output: Output) -> None:
    result = commit_session(output.store, staged_order(output.store, "a"))
    output.store.put(layout.failure_key("a"), b"left by a writer that died before it took this away")
    assert result.committed
    rows, report = output.start(output.manifest({"session_id": "a"}))
    assert rows == [Settled(1, "a", True)]
    assert output.counts(report) == (1, 0)
    assert not output.store.exists(layout.failure_key("a"))


def test_rows_of_published_shards_are_counted_and_not_passed_on(output: Output) -> None:
    output.committed("s1", "s2", "s4")
    output.failed("s3", 3)
    output.store.put(layout.shard_key(0, 2), b"a shard, which nobody reads")
    rows, report = output.start(output.manifest(*({"session_id": f"s{number}"} for number in range(1, 7))))
    assert [row.session_id for row in rows] == ["s5", "s6"]
    assert output.counts(report) == (3, 1)


def test_files_of_settled_rows_are_not_looked_at_again(output: Output) -> None:
    rows = [{"session_id": "a", "image": "gone.png"}, {"session_id": "b", "image": "gone.png"}, {"image": "gone.png"}]
    manifest = output.manifest(*rows)
    (output.folder / "gone.png").write_bytes((output.folder / "a.png").read_bytes())
    derived = [row.session_id for row in manifest.rows()][2]
    (output.folder / "gone.png").unlink()
    output.committed("a", derived)
    settled, report = output.start(output.manifest(*rows))
    assert settled == [Settled(1, "a", True), Settled(2, "b", False), Settled(3, derived, True)]
    assert output.errors(report) == [(2, "validate")]


def test_a_repeated_id_does_not_take_the_first_rows_record(output: Output) -> None:
    output.committed("a")
    rows, report = output.start(output.manifest({"session_id": "a"}, {"session_id": "a", "seed": 7}))
    assert rows == [Settled(1, "a", True), Settled(2, "a", False)]
    assert output.counts(report) == (1, 1)


def test_a_row_that_was_wrong_when_its_shard_was_published_stays_failed(output: Output) -> None:
    output.committed("s1", "s2", "s4")
    publish_shard(output.store, 0, 1, [])  # without s3, whose image was not there
    rows, report = output.start(output.manifest(*({"session_id": f"s{number}"} for number in range(1, 5))))
    assert rows == []
    assert output.counts(report) == (3, 1)
    assert output.errors(report) == [(3, "validate")]


def test_staged_chunks_are_found_by_session(output: Output) -> None:
    keys = [layout.chunk_key("b", index, 1, "0" * 64) for index in (0, 1)]
    for key in (*keys, layout.chunk_key("a", 0, 1, "0" * 64)):
        output.store.put(key, b"")
    output.committed("a")
    assert _past(output.store).staged == {"b": tuple(keys)}


def test_a_survey_survives_in_the_runs_record(output: Output) -> None:
    survey = output.manifest({"session_id": "a"}, {"session_id": "a"}).survey()
    assert json.loads(json.dumps(_noted(survey))) == {"rows": 2, "good": 1, "bad": 1, "chunks": 2, "frames": 66}

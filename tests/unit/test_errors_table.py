"""The errors table while it grows: compressed, in manifest order, and completed from what earlier starts stored."""

from __future__ import annotations

import random
import uuid

import pytest

from gamecraft_core.base.messages import FailOrder
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import errors_table, layout
from gamecraft_core.dataset.commit import fail_session
from gamecraft_core.dataset.errors_table import ErrorRow, ErrorTable, first_errors, stored_failures, write_errors
from gamecraft_core.dataset.rows import read_table


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def error(row: int, field: str = "image") -> ErrorRow:
    return ErrorRow(row=row, session_id=f"s{row}", field=field, stage="encode", reason=f"no {row}", remedy="look")


def test_lines_come_in_manifest_order_whatever_order_they_were_added_in(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors_table, "_PART_ROWS", 100)
    monkeypatch.setattr(errors_table, "_BLOCK_LINES", 7)
    lines = [error(row, field) for row in range(1, 951) for field in ("image", "prompt")]
    shuffled = random.Random(3).sample(lines, len(lines))
    table = ErrorTable()
    for line in shuffled:
        table.add(line)
    assert sum(len(part.new) for part in table._parts.values()) < 10 * 7, "the rest is compressed"
    table.write(store)
    assert [ErrorRow(**row) for row in read_table(store.get(layout.ERRORS)).to_pylist()] == lines
    assert first_errors(store, 3) == (lines[:3], len(lines))


def test_an_absent_or_empty_table_has_no_first_lines(store: Store) -> None:
    write_errors(store, [])
    assert first_errors(store, 5) == ([], 0)


def test_failures_of_earlier_starts_are_read_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors_table, "_BLOCK_LINES", 4)
    for row in range(1, 11):
        fail_session(
            store,
            FailOrder(session_id=f"s{row}", row=row, field="image", stage="encode", reason=f"no {row}", remedy="look"),
        )
    names = [f"s{row}" for row in (9, 2, 5, 1, 3, 10)]
    assert list(stored_failures(store, names)) == [error(int(name[1:])) for name in names]

"""Shards and the error table: fixed slices in manifest order, published once, readable when empty."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gamecraft_core.base.messages import FailOrder, PublishOrder
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.commit import commit_session, fail_session
from gamecraft_core.dataset.errors_table import ErrorRow, write_errors
from gamecraft_core.dataset.rows import read_table
from gamecraft_core.dataset.schema import SESSION_SCHEMA
from gamecraft_core.dataset.shards import publish, publish_shard
from tests.fakes.recordings import staged_order

AT_HAND = (("c", 3), ("a", 1))


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def record(store: Store, name: str) -> bytes:
    return commit_session(store, staged_order(store, name, 1, chunk_frames=5)).row


def test_names_count_from_zero_with_five_digits() -> None:
    assert layout.shard_key(0, 1) == "data/train-00000-of-00001.parquet"
    assert layout.shard_key(11, 12_345) == "data/train-00011-of-12345.parquet"


def test_rows_stay_in_the_order_given(store: Store) -> None:
    key = publish_shard(store, 0, 1, [record(store, name) for name in ("m", "a", "z")])
    table = read_table(store.get(key))
    assert table["session_id"].to_pylist() == ["m", "a", "z"]
    assert table.schema.equals(SESSION_SCHEMA)
    assert table.schema.metadata == SESSION_SCHEMA.metadata


def test_a_published_shard_never_changes(store: Store) -> None:
    key = publish_shard(store, 0, 1, [record(store, "a")])
    before = store.get(key)
    assert publish_shard(store, 0, 1, [record(store, "b")]) == key
    assert store.get(key) == before


def test_a_slice_without_sessions_has_a_schema_and_no_row_group(store: Store) -> None:
    shard = pq.ParquetFile(pa.BufferReader(store.get(publish_shard(store, 3, 4, []))))
    assert (shard.metadata.num_rows, shard.metadata.num_row_groups) == (0, 0)
    assert shard.schema_arrow.equals(SESSION_SCHEMA)
    assert shard.schema_arrow.metadata == SESSION_SCHEMA.metadata


def test_foreign_rows_are_refused(store: Store) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"session_id": ["x"]}), sink)
    with pytest.raises(pa.ArrowInvalid):
        publish_shard(store, 0, 1, [sink.getvalue().to_pybytes()])


def test_errors_are_listed_by_row(store: Store) -> None:
    rows = [
        ErrorRow(row=number, session_id=f"s{number}", field="image", stage="manifest", reason="gone", remedy="look")
        for number in (7, 2)
    ]
    write_errors(store, rows)
    table = read_table(store.get(layout.ERRORS))
    assert table.column_names == ["row", "session_id", "field", "stage", "reason", "remedy"]
    assert table["row"].to_pylist() == [2, 7]
    assert table["session_id"].to_pylist() == ["s2", "s7"]


def test_an_empty_error_table_is_written_with_its_columns(store: Store) -> None:
    write_errors(store, [])
    table = read_table(store.get(layout.ERRORS))
    assert (table.num_rows, table.num_columns) == (0, 6)


def test_a_shard_is_made_of_records_at_hand_and_stored_ones_in_manifest_order(store: Store) -> None:
    fresh = [commit_session(store, staged_order(store, name, 1, chunk_frames=5, row=row)).row for name, row in AT_HAND]
    for name, row in (("b", 2), ("d", 4)):
        commit_session(store, staged_order(store, name, 1, chunk_frames=5, row=row))
    fail_session(store, FailOrder(session_id="e", row=5, field="", stage="decode", reason="NaN", remedy=""))
    order = PublishOrder(session_id="shard-00000", shard=0, total=1, stored=("d", "e", "b"), fresh=("c", "a"))
    assert publish(store, order, fresh) > sum(map(len, fresh))
    table = read_table(store.get(layout.shard_key(0, 1)))
    assert table["session_id"].to_pylist() == ["a", "b", "c", "d"]

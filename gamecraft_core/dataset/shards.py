"""Shards: fixed slices of the manifest, published once each when their sessions have settled.

Invariants: shard k holds the committed rows of its slice, in manifest order; a published shard never changes; a slice
without a committed row is an empty shard, so that the numbering is whole. Imports pyarrow: import it late.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from gamecraft_core.base.ahead import ahead
from gamecraft_core.base.messages import PublishOrder
from gamecraft_core.base.points import reached
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.rows import read_table, table_bytes
from gamecraft_core.dataset.schema import SESSION_SCHEMA


def publish(store: Store, order: PublishOrder, fresh: Iterable[bytes] = ()) -> int:
    """Carry out ``order`` with the records in ``fresh`` and those that the store has; returns the bytes of its rows."""
    reached("publish.begun")
    rows = [*fresh, *ahead(store.get, map(layout.commit_key, order.stored))]
    tables = [table for table in map(read_table, rows) if table.num_rows]  # a tombstone has none
    put_shard(store, order.shard, order.total, sorted(tables, key=lambda table: int(table["row"][0].as_py())))
    reached("publish.done")
    return sum(map(len, rows))


def publish_shard(store: Store, index: int, total: int, rows: Iterable[bytes]) -> str:
    """Put shard ``index`` of ``total`` from one-row records in manifest order; one already there is left as it is."""
    return put_shard(store, index, total, map(read_table, rows))


def put_shard(store: Store, index: int, total: int, tables: Iterable[pa.Table]) -> str:
    """The same, from the records' tables."""
    key = layout.shard_key(index, total)
    store.put_if_absent(key, table_bytes(pa.concat_tables([SESSION_SCHEMA.empty_table(), *tables])))
    return key

"""Shards: fixed slices of the manifest, published once each when their sessions have settled.

Invariants: shard k holds the committed rows of its slice, in manifest order; a published shard never changes; a slice
without a committed row is an empty shard, so that the numbering is whole. Imports pyarrow: import it late.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from gamecraft_core.base.messages import PublishOrder
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.rows import read_table, table_bytes
from gamecraft_core.dataset.schema import SESSION_SCHEMA


def publish(store: Store, order: PublishOrder, fresh: Iterable[bytes] = ()) -> int:
    """Carry out ``order`` with the records in ``fresh`` and those that the store has; returns the bytes of its rows."""
    rows = [*fresh, *(store.get(layout.commit_key(session_id)) for session_id in order.stored)]
    rows.sort(key=lambda row: int(read_table(row, ["row"])["row"][0].as_py()))
    publish_shard(store, order.shard, order.total, rows)
    return sum(map(len, rows))


def publish_shard(store: Store, index: int, total: int, rows: Iterable[bytes]) -> str:
    """Put shard ``index`` of ``total`` from one-row records in manifest order; one already there is left as it is."""
    key = layout.shard_key(index, total)
    tables = [SESSION_SCHEMA.empty_table(), *(read_table(row) for row in rows)]
    store.put_if_absent(key, table_bytes(pa.concat_tables(tables)))
    return key

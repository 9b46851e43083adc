"""``errors.parquet``: one line for everything that is wrong with a manifest row without a session.

Invariant: what a growing table holds is compressed, so that a run in which everything fails keeps its memory. Imports
pyarrow: import it late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from gamecraft_core.base.ahead import ahead
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.rows import decode_failure, read_table, table_bytes

ERROR_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("session_id", pa.string()),
        ("field", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("remedy", pa.string()),
    ]
)

_ORDER = [("row", "ascending"), ("stage", "ascending"), ("field", "ascending")]
#: Manifest rows of a part, which is sorted at once, and lines of a block, which is compressed at once.
_PART_ROWS = 50_000
_BLOCK_LINES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """Why manifest row ``row`` (from 1) has no session. ``stage`` is ``validate`` where it was refused unstarted."""

    row: int
    session_id: str
    field: str
    stage: str
    reason: str
    remedy: str


class ErrorTable:
    """The table while it grows: blocks of lines, by the part of the manifest that they are of."""

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}

    def add(self, error: ErrorRow) -> None:
        part = self._parts.setdefault(error.row // _PART_ROWS, _Part())
        part.new.append(error)
        if len(part.new) == _BLOCK_LINES:
            part.blocks.append(table_bytes(_table(part.new)))
            part.new.clear()

    def write(self, store: Store) -> None:
        """Write the table in manifest order, also when it is empty."""
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, ERROR_SCHEMA, compression="zstd") as writer:
            for _, part in sorted(self._parts.items()):
                lines = pa.concat_tables([*map(read_table, part.blocks), _table(part.new)])
                writer.write_table(lines.sort_by(_ORDER))
        store.put(layout.ERRORS, bytes(sink.getvalue()))


@dataclass(slots=True)
class _Part:
    new: list[ErrorRow] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)


def write_errors(store: Store, errors: Iterable[ErrorRow]) -> None:
    """Write the table of ``errors``."""
    table = ErrorTable()
    for error in errors:
        table.add(error)
    table.write(store)


def first_errors(store: Store, count: int) -> tuple[list[ErrorRow], int]:
    """The first lines of the table as it is stored, and how many there are in all."""
    table = pq.ParquetFile(pa.BufferReader(store.get(layout.ERRORS)))
    batch = next(table.iter_batches(batch_size=count), None)
    return [ErrorRow(**row) for row in batch.to_pylist()] if batch else [], table.metadata.num_rows


def stored_failures(store: Store, session_ids: Iterable[str]) -> Iterator[ErrorRow]:
    """The failures of sessions that an earlier start recorded: an object each, so several are read at once."""

    def read(session_id: str) -> ErrorRow:
        return ErrorRow(**decode_failure(store.get(layout.failure_key(session_id))))

    return ahead(read, session_ids)


def _table(errors: Iterable[ErrorRow]) -> pa.Table:
    return pa.Table.from_pylist([asdict(error) for error in errors], schema=ERROR_SCHEMA)

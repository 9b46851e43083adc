"""``errors.parquet``: one line for every manifest row without a session. Imports pyarrow: import it late."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa

from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.rows import table_bytes

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """Why manifest row ``row`` (from 1) has no session. ``stage`` is ``manifest`` where it was refused unstarted."""

    row: int
    session_id: str
    field: str
    stage: str
    reason: str
    remedy: str


def write_errors(store: Store, errors: Iterable[ErrorRow]) -> None:
    """Write the table in manifest order, also when it is empty."""
    rows = sorted((asdict(error) for error in errors), key=lambda row: (row["row"], row["stage"], row["field"]))
    store.put(layout.ERRORS, table_bytes(pa.Table.from_pylist(rows, schema=ERROR_SCHEMA)))

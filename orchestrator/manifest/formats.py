"""JSON Lines, CSV and Parquet as one stream of raw rows, numbered from 1 in file order; blank lines do not count.

Invariants: one bad line is one bad row and the next is read; memory is bounded by a line (JSON Lines, CSV) or a batch
(Parquet). Only a file that cannot be read as its format at all raises UsageError.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from gamecraft_core.base.errors import UsageError
from orchestrator.manifest.fields import shown

MAX_LINE_BYTES = 4 << 20
#: Together with the csv module's limit of 128 KiB a cell this makes a line cut at MAX_LINE_BYTES always a bad row.
MAX_CSV_COLUMNS = 32
PARQUET_BATCH_ROWS = 256
#: Of one column of a row group, uncompressed.
MAX_PARQUET_BYTES = 512 << 20
MAX_PARQUET_VALUES = 1 << 26

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row's cells as the file has them; ``problem`` (reason, remedy) where it could not be read.

    ``copy`` counts from 0 the videos that one row asks for.
    """

    number: int
    cells: dict[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    copy: int = 0


def format_of(uri: str) -> str:
    """``jsonl``, ``csv`` or ``parquet``, by the name's ending."""
    for suffix, name in _SUFFIXES.items():
        if uri.lower().endswith(suffix):
            return name
    raise UsageError(f"{uri!r} has no known ending", field="manifest", remedy=f"use one of {' '.join(_SUFFIXES)}")


def read_rows(file: BinaryIO, file_format: str) -> Iterator[RawRow]:
    """Every row of ``file``, which is read once, from its start."""
    return {"jsonl": _jsonl_rows, "csv": _csv_rows, "parquet": _parquet_rows}[file_format](file)


def _jsonl_rows(file: BinaryIO) -> Iterator[RawRow]:
    lines = (line for line in _lines(file) if line.strip())
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE_BYTES:
            yield RawRow(number, problem=(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB", "shorten it"))
            continue
        try:
            value = json.loads(line.decode(), object_pairs_hook=_unique_keys)
        except UnicodeDecodeError:
            yield RawRow(number, problem=("the line is not valid UTF-8", "save the manifest as UTF-8"))
        except (ValueError, RecursionError) as error:
            yield RawRow(number, problem=(f"the line is not readable JSON: {error}", "write one JSON object a line"))
        else:
            if isinstance(value, dict):
                yield RawRow(number, value)
            else:
                yield RawRow(number, problem=(f"{shown(value)} is not an object", "write one JSON object a line"))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if problem := _repeated([key for key, _ in pairs]):
        raise ValueError(problem)
    return dict(pairs)


def _csv_rows(file: BinaryIO) -> Iterator[RawRow]:
    # Bytes that are not UTF-8 become lone surrogates, which the row's own checks refuse by field.
    reader = csv.reader(line.decode(errors="surrogateescape") for line in _lines(file))
    header = _csv_header(reader)
    number = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            number += 1
            yield RawRow(number, problem=(f"the line is not readable CSV: {error}", "quote cells that hold quotes"))
            continue
        if cells is None:
            return
        if not any(cells):
            continue
        number += 1
        if len(cells) == len(header):
            yield RawRow(number, {name: cell for name, cell in zip(header, cells, strict=True) if cell})
        else:
            reason = f"the row has {len(cells)} cells and the header {len(header)}"
            yield RawRow(number, problem=(reason, "quote cells that hold commas"))


def _csv_header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UsageError(f"unreadable CSV header: {error}", field="manifest", remedy="check the file") from error
    if len(header) > MAX_CSV_COLUMNS:
        raise UsageError(f"{len(header)} CSV columns are too many", field="manifest", remedy="check the header line")
    _refuse_repeated_columns(header)
    return header


def _refuse_repeated_columns(names: Sequence[str]) -> None:
    if problem := _repeated(names):
        raise UsageError(problem, field="manifest", remedy="give each column a name of its own")


def _repeated(names: Sequence[str]) -> str:
    """What is wrong where a name is there twice, else nothing."""
    return next((f"column {shown(name)} is there twice" for name, count in Counter(names).items() if count > 1), "")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines without the byte order mark; of an overlong one only the first MAX_LINE_BYTES + 1 bytes."""
    first = True
    while line := file.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield line.removeprefix(_BOM) if first else line
        first = False


def _parquet_rows(file: BinaryIO) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        metadata = pq.read_metadata(file)
        _refuse_bombs(metadata)
        # Text is kept as its file has it, each value once: a few kilobytes can repeat a long one a million times.
        leaves = [metadata.schema.column(position) for position in range(metadata.num_columns)]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        parquet = pq.ParquetFile(file, metadata=metadata, read_dictionary=texts)
        _refuse_repeated_columns(parquet.schema_arrow.names)
        for batch in parquet.iter_batches(batch_size=PARQUET_BATCH_ROWS):
            for position in range(batch.num_rows):
                number += 1
                yield _parquet_row(batch.slice(position, 1), number)
    except (pa.ArrowException, OSError) as error:
        reason = f"the Parquet file cannot be read after row {number}: {error}"
        raise UsageError(reason, field="manifest", remedy="write it again; plain columns, no encryption") from error


def _refuse_bombs(metadata: Any) -> None:
    """Row groups are decoded whole, and a small file can unfold to a large one."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for position in range(group.num_columns):
            column = group.column(position)
            if column.total_uncompressed_size > MAX_PARQUET_BYTES or column.num_values > MAX_PARQUET_VALUES:
                raise UsageError(
                    f"column {shown(column.path_in_schema)} of row group {number} is too large",
                    field="manifest",
                    remedy=f"write row groups of at most {MAX_PARQUET_BYTES >> 20} MiB and {MAX_PARQUET_VALUES} values",
                )


def _parquet_row(row: Any, number: int) -> RawRow:
    try:
        return RawRow(number, row.to_pylist()[0])
    except (ValueError, OverflowError, TypeError) as error:
        return RawRow(number, problem=(f"a cell cannot be read: {error}", "use text, numbers and lists"))

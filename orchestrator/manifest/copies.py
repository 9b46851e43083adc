"""Rows that ask for several videos, written out: each copy has a seed of its own and counts as a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from orchestrator.manifest.fields import as_integer
from orchestrator.manifest.formats import RawRow

FIELD = "videos"
MOST = 64


def written_out(rows: Iterable[RawRow]) -> Iterator[RawRow]:
    """``rows`` with a copy for each of the ``videos`` that they ask for, numbered anew from 1."""
    number = 0
    for row in rows:
        asked = as_integer(row.cells.get(FIELD))
        for copy in range(asked if asked is not None and 1 <= asked <= MOST else 1):
            number += 1
            yield replace(row, number=number, copy=copy)

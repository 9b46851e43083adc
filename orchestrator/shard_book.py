"""Which rows of which shard have settled, and so which shard may be published. Pure bookkeeping.

A shard is a fixed slice of the manifest's rows; it is published once every row of its slice has committed or failed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from gamecraft_core.base.messages import PublishOrder
from orchestrator.ports import Ref


@dataclass(slots=True)
class _Slice:
    missing: int
    fresh: list[tuple[int, Ref]] = field(default_factory=list)
    stored: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Publication:
    """A shard that is complete: the order, and the row payloads that go with it (in manifest order)."""

    order: PublishOrder
    payloads: tuple[Ref, ...]


class ShardBook:
    """Counts settled rows, slice by slice. Rows are numbered from 1."""

    def __init__(self, rows: int, rows_per_shard: int, published: Collection[int] = ()) -> None:
        self._rows = rows
        self._size = rows_per_shard
        self._published = set(published)
        self._slices: dict[int, _Slice] = {}

    @property
    def total(self) -> int:
        return max(1, -(-self._rows // self._size))

    @property
    def published(self) -> int:
        return len(self._published)

    def failed(self, row: int) -> Publication | None:
        """The row ended without a record."""
        return self._settle(row)

    def committed(self, row: int, session_id: str, ref: Ref | None) -> Publication | None:
        """The row is committed; ``ref`` holds its record, or is None where only the store has it."""
        part = self._slice(row)
        if ref is None:
            part.stored.append((row, session_id))
        else:
            part.fresh.append((row, ref))
        return self._settle(row)

    def _slice(self, row: int) -> _Slice:
        index = (row - 1) // self._size
        if index not in self._slices:
            self._slices[index] = _Slice(missing=min(self._size, self._rows - index * self._size))
        return self._slices[index]

    def _settle(self, row: int) -> Publication | None:
        part = self._slice(row)
        part.missing -= 1
        if part.missing:
            return None
        index = (row - 1) // self._size
        del self._slices[index]
        if index in self._published:
            return None
        self._published.add(index)
        order = PublishOrder(
            session_id=f"shard-{index:05d}",
            shard=index,
            total=self.total,
            stored=tuple(session_id for _, session_id in sorted(part.stored)),
        )
        return Publication(order, tuple(ref for _, ref in sorted(part.fresh, key=lambda item: item[0])))

"""Which rows of which shard have settled, and so which shard may be published. Pure bookkeeping.

A shard is a fixed slice of the manifest's rows; it is published once every row of its slice has committed or failed.
Invariants: what is held is bounded by the slices begun and not complete; of records, by a number: past it, the slices
that have waited longest (for one long session, say) give theirs up and are published from the store.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from gamecraft_core.base.messages import PublishOrder
from orchestrator.policy import FIRST
from orchestrator.ports import Ref
from orchestrator.tasks import Task

#: Records held for their shards, over all slices: some 25 KB each in the lanes' memory or the control plane's.
MAX_HELD = 4096


@dataclass(slots=True)
class _Slice:
    missing: int
    fresh: list[tuple[int, str, Ref]] = field(default_factory=list)
    stored: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Publication:
    """A shard that is complete: the order, and the row payloads that go with it (in manifest order)."""

    order: PublishOrder
    payloads: tuple[Ref, ...]

    def task(self, now: float) -> Task:
        return Task("publish", ("write", None, None), FIRST, now, order=self.order, payloads=self.payloads)


class ShardBook:
    """Counts settled rows, slice by slice. Rows are numbered from 1."""

    def __init__(
        self, rows: int, rows_per_shard: int, published: Collection[int] = (), max_held: int = MAX_HELD
    ) -> None:
        self._rows = rows
        self._size = rows_per_shard
        self._max_held = max_held
        self._held = 0
        self._published = set(published)
        self._slices: dict[int, _Slice] = {}

    @property
    def total(self) -> int:
        return max(1, -(-self._rows // self._size))

    @property
    def published(self) -> int:
        return len(self._published)

    def closed(self, row: int) -> bool:
        """The row's shard is published (or its order is out): nothing can be added to it any more."""
        return (row - 1) // self._size in self._published

    def failed(self, row: int) -> Publication | None:
        """The row ended without a record."""
        return self._settle(row)

    def committed(self, row: int, session_id: str, ref: Ref | None) -> Publication | None:
        """The row is committed; ``ref`` holds its record, or is None where only the store has it."""
        part = self._slice(row)
        if ref is None:
            part.stored.append((row, session_id))
        else:
            part.fresh.append((row, session_id, ref))
            self._held += 1
        publication = self._settle(row)
        while self._held > self._max_held:
            self._give_up_the_oldest()
        return publication

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
        self._held -= len(part.fresh)
        if index in self._published:
            return None
        self._published.add(index)
        fresh = sorted(part.fresh, key=lambda item: item[0])
        order = PublishOrder(
            session_id=f"shard-{index:05d}",
            shard=index,
            total=self.total,
            stored=tuple(session_id for _, session_id in sorted(part.stored)),
            fresh=tuple(session_id for _, session_id, _ in fresh),
        )
        return Publication(order, tuple(ref for _, _, ref in fresh))

    def _give_up_the_oldest(self) -> None:
        """Let the slice that was begun first, of those that hold records, have them from the store."""
        part = next(part for part in self._slices.values() if part.fresh)
        part.stored += [(row, session_id) for row, session_id, _ in part.fresh]
        self._held -= len(part.fresh)
        part.fresh.clear()

"""The write lane: small results into the store. Every order can be repeated, on any lane.

Several orders are inside at once, each on a thread of its own: most of the time they wait for the store. What a lane
staged lately it remembers, to spare a commit the reading; nothing depends on that.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from actors.role import Role, answering
from gamecraft_core.base.messages import (
    CommitOrder,
    FailOrder,
    FloatArray,
    Fragment,
    PublishOrder,
    Receipt,
    RestoreOrder,
    WriteOrder,
)
from gamecraft_core.base.store import open_store

_REMEMBERED_BYTES = 256 << 20


class _Remembered:
    """The fragments staged last, by key, within a number of bytes. Safe between threads."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._of: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def add(self, key: str, data: bytes) -> None:
        with self._lock:
            self._left += len(self._of.pop(key, b"")) - len(data)
            self._of[key] = data
            while self._left < 0:
                self._left += len(self._of.pop(next(iter(self._of))))

    def take(self, key: str) -> bytes | None:
        """The fragment, which is then forgotten; None where it is not known."""
        with self._lock:
            data = self._of.pop(key, None)
            self._left += len(data or b"")
        return data


class WriteActor(Role):
    """Stages fragments, commits sessions, records failures and publishes shards under one output root."""

    def __init__(self, lane: str, root: str, store_options: Mapping[str, Any]) -> None:
        super().__init__("write", lane)
        self._store = open_store(root, store_options)
        self._staged = _Remembered(_REMEMBERED_BYTES)

    def warm(self) -> dict[str, Any]:
        """Load what the first order would otherwise wait for, and see that the store answers."""
        from gamecraft_core.dataset import commit, layout, shards  # noqa: F401

        self._store.exists(layout.RUN)
        return self.ping()

    @answering
    def run(
        self, order: WriteOrder | RestoreOrder | CommitOrder | FailOrder | PublishOrder, *payloads: Any
    ) -> tuple[Receipt, Any]:
        match order:
            case WriteOrder():
                return self.carry(order, lambda: (None, self._write(order, *payloads)))
            case RestoreOrder():
                return self.carry(order, lambda: self._restore(order))
            case CommitOrder():
                return self.carry(order, lambda: self._commit(order, *payloads))
            case FailOrder():
                return self.carry(order, lambda: (None, self._fail(order)))
            case PublishOrder():
                return self.carry(order, lambda: (None, self._publish(order, payloads)))

    def _write(self, order: WriteOrder, fragment: Fragment, latents: FloatArray) -> dict[str, Any]:
        from gamecraft_core.dataset.chunk_state import stage

        kept = 0
        if order.keep_latents:
            uri, kept = self._keep(order.session_id, order.index, latents)
            order = replace(order, record=replace(order.record, latents_uri=uri))
        record, size = stage(self._store, order, fragment.data, latents)
        self._staged.add(record.staged_key, fragment.data)
        return {"stored": True, "record": asdict(record), "bytes": size + kept}

    def _restore(self, order: RestoreOrder) -> tuple[FloatArray | None, dict[str, Any]]:
        from gamecraft_core.dataset.chunk_state import restore

        found = restore(self._store, order.keys, order.identity)
        for record, fragment in zip(found.chunks, found.fragments, strict=True):
            self._staged.add(record.staged_key, fragment)
        size = 0 if found.latents is None else found.latents.nbytes
        return found.latents, {"chunks": [asdict(record) for record in found.chunks], "payload_bytes": size}

    def _commit(
        self, order: CommitOrder, last: Fragment | None = None, latents: FloatArray | None = None
    ) -> tuple[bytes, dict[str, Any]]:
        from gamecraft_core.dataset.commit import commit_session

        kept = 0
        if order.keep_latents and latents is not None:
            uri, kept = self._keep(order.session_id, order.index, latents)
            order = replace(order, chunks=(*order.chunks[:-1], replace(order.chunks[-1], latents_uri=uri)))
        fragments = [self._staged.take(chunk.staged_key) for chunk in order.chunks]
        if last is not None:
            fragments[-1] = last.data
        result = commit_session(self._store, order, fragments)
        facts = {"stored": True, "bytes": result.video_bytes + len(result.row) + kept, "committed": result.committed}
        return result.row, facts | ({"failure": result.failure} if result.failure else {})

    def _fail(self, order: FailOrder) -> dict[str, Any]:
        from gamecraft_core.dataset.commit import fail_session

        standing = fail_session(self._store, order)
        return {"failure": standing} if standing else {}

    def _publish(self, order: PublishOrder, fresh: tuple[bytes, ...]) -> dict[str, Any]:
        from gamecraft_core.dataset.shards import publish

        return {"bytes": publish(self._store, order, fresh)}

    def _keep(self, session_id: str, index: int, latents: FloatArray) -> tuple[str, int]:
        """Store a chunk's latents as an artifact: where, and how many bytes."""
        from gamecraft_core.dataset.commit import put_latents

        kept = put_latents(self._store, session_id, index, latents)
        return self._store.uri(kept.key), kept.size

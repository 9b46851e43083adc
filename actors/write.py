"""The write lane: small results into the store. Every order can be repeated, on any lane.

Several orders are inside at once, each on a thread of its own: most of the time they wait for the store. What a lane
staged lately it remembers, to spare a commit the reading; nothing depends on that.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from actors.role import Role, answering
from gamecraft_core.base.messages import (
    CommitOrder,
    FailOrder,
    FloatArray,
    Fragment,
    PublishOrder,
    Receipt,
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
    def run(self, order: WriteOrder | CommitOrder | FailOrder | PublishOrder, *payloads: Any) -> tuple[Receipt, Any]:
        match order:
            case WriteOrder():
                return self.carry(order, lambda: (None, self._write(order, *payloads)))
            case CommitOrder():
                return self.carry(order, lambda: self._commit(order))
            case FailOrder():
                return self.carry(order, lambda: (None, self._fail(order)))
            case PublishOrder():
                return self.carry(order, lambda: (None, self._publish(order, payloads)))

    def _write(self, order: WriteOrder, fragment: Fragment, latents: FloatArray | None = None) -> dict[str, Any]:
        from gamecraft_core.dataset.commit import put_latents, stage_fragment

        staged = stage_fragment(self._store, order.session_id, order.index, fragment)
        self._staged.add(staged.key, fragment.data)
        facts = {"fragment_key": staged.key, "fragment_sha256": staged.sha256, "bytes": staged.size}
        if latents is not None:
            kept = put_latents(self._store, order.session_id, order.index, latents)
            facts |= {"latents_uri": self._store.uri(kept.key), "bytes": staged.size + kept.size}
        return facts

    def _commit(self, order: CommitOrder) -> tuple[bytes, dict[str, Any]]:
        from gamecraft_core.dataset.commit import commit_session

        fragments = [self._staged.take(chunk.fragment_key) for chunk in order.chunks]
        result = commit_session(self._store, order, fragments)
        return result.row, {"bytes": result.video_bytes + len(result.row), "committed": result.committed}

    def _fail(self, order: FailOrder) -> dict[str, Any]:
        from gamecraft_core.dataset.layout import failure_key, staging_folder

        self._store.put(failure_key(order.session_id), json.dumps(asdict(order), ensure_ascii=False).encode())
        for staged in list(self._store.list(staging_folder(order.session_id))):
            self._store.delete(staged)
        return {"failure": asdict(order)}

    def _publish(self, order: PublishOrder, fresh: tuple[bytes, ...]) -> dict[str, Any]:
        from gamecraft_core.dataset.shards import publish

        return {"bytes": publish(self._store, order, fresh)}

"""What the store has of sessions: of settled ones records, videos and how they ended, of any other staged chunks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.chunk_state import reach
from orchestrator.live.feed import Feed
from orchestrator.live.journal import Journal, Promise
from orchestrator.live.port import NoSuchSession
from orchestrator.live.reel import Film, split, staged_fragment
from orchestrator.live.session import Live

#: Sessions whose files lately somebody asked for.
_KEPT = 64


def no_such(session_id: str) -> NoSuchSession:
    return NoSuchSession(f"there is no session {session_id[:80]!r}", field="id", remedy="list your sessions")


class Archive:
    """What ``store`` holds of sessions that this process does not run. Its calls wait for the store."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        #: The committed video of a session.
        self.film = lru_cache(_KEPT)(self._film)

    def unsettled(self) -> list[tuple[Promise, tuple[str, ...]]]:
        """Every session that was promised and has no end yet, with the keys of its durable chunks."""
        settled = {key.rpartition("/")[2].removesuffix(".parquet") for key in self._store.list(layout.COMMITS)}
        found = []
        for noted in self._journal.names():
            if noted.session_id in settled or "cancel" in noted.whats or "request" not in noted.whats:
                continue
            keys = tuple(self._store.list(layout.staging_folder(noted.session_id)))
            found.append((self._journal.read(noted.tenant, noted.session_id), keys))
        return found

    def find(self, tenant: str, session_id: str, now: float) -> Live:
        """A settled session of ``tenant``; NoSuchSession for any other.

        One that was committed, or failed, before it could be called off is not cancelled.
        """
        try:
            promise = self._journal.read(tenant, session_id)
        except FileNotFoundError:
            raise no_such(session_id) from None
        live = restored(promise, (), now)
        live.feed.close()
        live.closed = True
        try:
            failure = self._failure(session_id)
        except FileNotFoundError:
            if not promise.cancelled:
                raise no_such(session_id) from None
            live.status = "cancelled"
            return live
        live.status = "failed" if failure else "committed"
        if failure:
            live.error = Poisoned(failure["reason"], field=failure["field"], remedy=failure["remedy"])
        else:
            live.shown = len(live.controls)
        return live

    def init(self, live: Live) -> bytes:
        """The init segment of what is shown of ``live``; FileNotFoundError where it is being stored."""
        if live.status == "committed":
            return self.film(live.session_id).init()
        inits = (split(staged_fragment(self._store, key))[0] for key in live.staged.values())
        return next((init for init in inits if init), b"")

    def segment(self, live: Live, index: int) -> bytes:
        """Its media segment in place ``index``; FileNotFoundError as above."""
        if live.status == "committed":
            return self.film(live.session_id).segment(index)
        if (key := live.staged.get(live.place(index))) is None:
            raise FileNotFoundError(f"chunk {live.place(index)} is not durable yet")
        return split(staged_fragment(self._store, key))[1]

    def record(self, session_id: str) -> dict[str, Any]:
        """The committed row."""
        from gamecraft_core.dataset.rows import read_table

        row: dict[str, Any] = read_table(self._store.get(layout.commit_key(session_id))).to_pylist()[0]
        del row["video"]
        return row

    def remove(self, tenant: str, session_id: str) -> None:
        """Take away the session's record, chunks and promises. Its video may be another's, too: see ``jobs.doctor``."""
        self.clear(session_id)
        for key in (layout.failure_key(session_id), layout.commit_key(session_id)):
            self._store.delete(key)
        self._journal.forget(tenant, session_id)

    def clear(self, session_id: str) -> None:
        """Remove the chunks that were staged."""
        for key in list(self._store.list(layout.staging_folder(session_id))):
            self._store.delete(key)

    def _film(self, session_id: str) -> Film:
        from gamecraft_core.dataset.rows import read_table

        row = self._store.get(layout.commit_key(session_id))
        return Film(self._store, read_table(row, ["video_path"]).to_pylist()[0]["video_path"])

    def _failure(self, session_id: str) -> dict[str, Any] | None:
        """What the session failed of, None where it is committed; FileNotFoundError where it is neither."""
        from gamecraft_core.dataset.rows import read_failure

        return read_failure(self._store.get(layout.commit_key(session_id)))


def restored(promise: Promise, keys: tuple[str, ...], now: float) -> Live:
    """The session of ``promise``, with the durable chunks among ``keys`` that no gap precedes."""
    live = Live(promise.spec, promise.created, Feed(first_number(now)), list(promise.spec.controls))
    live.closed, live.key = promise.finish or not promise.spec.open, promise.key
    count = min(reach(keys), len(live.controls))
    for key in keys:
        if (named := layout.parse_chunk_key(key)) is not None and named.chunk < count:
            live.staged[named.chunk] = key
            live.found += (key,)
    live.have(len(live.staged))
    return live


def first_number(now: float) -> int:
    """Where a feed that begins at Unix time ``now`` begins to count: above what it had told before a restart.

    Milliseconds rise faster than any session's events.
    """
    return int(now * 1000)

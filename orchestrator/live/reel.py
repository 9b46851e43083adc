"""What players are sent: media segments of the last chunks in memory, bounded over all sessions; older ones re-read.

Segments are numbered by their places in time.

A chunk's segment is the same bytes wherever it comes from: the decode lane's fragment, the staged chunk, or the
committed video, which is nothing but one init segment and every chunk's media segment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from gamecraft_core.base.store import Store
from gamecraft_core.dataset.chunk_state import DamagedState, unpack
from gamecraft_core.media.fragment import init_length

Answer = TypeVar("Answer")

#: More than a chunk's ``moof`` box: its size, and the head of what follows, are read at once.
_HEAD_BYTES = 16 << 10


class Aside(Protocol):
    """Carries out a call that waits for files or the network, away from the event loop."""

    def __call__(self, call: Callable[..., Answer], /, *arguments: Any) -> Awaitable[Answer]: ...


class Reel:
    """Media segments by session and chunk, the least lately used forgotten first."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._of: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def keep(self, session_id: str, index: int, segment: bytes) -> None:
        self._left += len(self._of.pop((session_id, index), b"")) - len(segment)
        self._of[session_id, index] = segment
        while self._left < 0:
            self._left += len(self._of.popitem(last=False)[1])

    def find(self, session_id: str, index: int) -> bytes | None:
        segment = self._of.get((session_id, index))
        if segment is not None:
            self._of.move_to_end((session_id, index))
        return segment


def staged_fragment(store: Store, key: str) -> bytes:
    """The fragment in a staged chunk; FileNotFoundError where it is gone, or is damaged."""
    try:
        return unpack(store.get(key), key).fragment
    except DamagedState as error:
        raise FileNotFoundError(str(error)) from error


class Film:
    """A committed video, read piece by piece: where its segments lie is found out as far as it is asked for.

    Safe to share between threads: those that look for the same segment at once find the same.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        found = store.stat(key)
        self.size, self.version = found.size, found.version
        self._starts: dict[int, int] = {}

    def read(self, start: int, end: int) -> bytes:
        """Nothing is asked of the store where nothing is to be read: it may refuse that."""
        return self._store.get_range(self._key, start, end, self.version) if start < end else b""

    def init(self) -> bytes:
        return self.read(0, self._start(0))

    def segment(self, index: int) -> bytes:
        return self.read(self._start(index), self._start(index + 1))

    def _start(self, index: int) -> int:
        """Where chunk ``index`` begins; that of the one after the last is the size."""
        if not self._starts:
            self._starts[0] = _first_segment(self.read(0, min(self.size, _HEAD_BYTES)))
        while (number := len(self._starts)) <= index:
            self._starts[number] = self._end(self._starts[number - 1])
        return self._starts[index]

    def _end(self, start: int) -> int:
        """The end of the segment at ``start``: a ``moof`` box and the ``mdat`` box behind it."""
        head = self.read(start, min(self.size, start + _HEAD_BYTES))
        moof = int.from_bytes(head[:4])
        return start + moof + int.from_bytes(head[moof : moof + 4])


def _first_segment(head: bytes) -> int:
    start = 0
    while head[start + 4 : start + 8] != b"moof":
        start += int.from_bytes(head[start : start + 4])
    return start


def split(fragment: bytes) -> tuple[bytes, bytes]:
    """Init segment and media segment of a chunk's fragment; both are empty where it settles no frames."""
    length = init_length(fragment) if fragment else 0
    return fragment[:length], fragment[length:]

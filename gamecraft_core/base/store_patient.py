"""A store that waits for itself: every call is repeated while the store is away, a little later each time.

For a program that has nothing better to do meanwhile. ``put_if_absent`` may find what its own lost attempt has put, and
then says False: whoever needs to know looks at what is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from gamecraft_core.base.errors import StoreUnavailable
from gamecraft_core.base.store import Stat, Store

log = logging.getLogger("framelane.store")

Answer = TypeVar("Answer")


class PatientStore:
    """``store``, waited for up to ``seconds`` on end. ``pause`` gives the seconds to wait after so many failures."""

    def __init__(
        self,
        store: Store,
        seconds: float,
        pause: Callable[[int], float],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._pause = pause
        self._clock = clock
        self._sleep = sleep
        self.root = store.root

    def uri(self, key: str) -> str:
        return self._store.uri(key)

    def get(self, key: str) -> bytes:
        return self._insist(lambda: self._store.get(key))

    def stat(self, key: str) -> Stat:
        return self._insist(lambda: self._store.stat(key))

    def get_range(self, key: str, start: int, end: int, version: str) -> bytes:
        """Not repeated: the key may hold other content now, and then that is all it will ever say."""
        return self._store.get_range(key, start, end, version)

    def put(self, key: str, data: bytes) -> None:
        self._insist(lambda: self._store.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._insist(lambda: self._store.put_if_absent(key, data))

    def exists(self, key: str) -> bool:
        return self._insist(lambda: self._store.exists(key))

    def list(self, prefix: str) -> Iterator[str]:
        last = ""
        names = self._store.list(prefix)

        def following() -> str | None:
            """The next key; where the listing broke off, from a new one, after the last key that was given."""
            nonlocal names
            try:
                return next((name for name in names if name > last), None)
            except StoreUnavailable:
                names = self._store.list(prefix)
                raise

        while (name := self._insist(following)) is not None:
            last = name
            yield name

    def delete(self, key: str) -> None:
        self._insist(lambda: self._store.delete(key))

    def _insist(self, call: Callable[[], Answer]) -> Answer:
        failures, since = 0, self._clock()
        while True:
            try:
                return call()
            except StoreUnavailable as error:
                failures += 1
                if self._clock() - since >= self._seconds:
                    raise
                pause = self._pause(failures)
                log.warning("waiting %.1f s for the store: %s", pause, error)
                self._sleep(pause)

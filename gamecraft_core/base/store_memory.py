"""The store in this process's memory, for tests: it does not cross process boundaries."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress

from gamecraft_core.base.store import Entry, Leftover, Stat, changed, clean_folder, clean_key


class MemoryStore:
    """fsspec's in-process filesystem below one path."""

    _lock = threading.Lock()

    def __init__(self, uri: str) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        self._fs = MemoryFileSystem()
        self._base = f"/{uri.removeprefix('memory://').strip('/')}".rstrip("/")
        self.root = f"memory://{self._base.lstrip('/')}"

    def uri(self, key: str) -> str:
        return f"memory://{self._path(key).lstrip('/')}"

    def get(self, key: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(key)))

    def stat(self, key: str) -> Stat:
        data = self.get(key)
        return Stat(len(data), hashlib.sha256(data).hexdigest())

    def get_range(self, key: str, start: int, end: int, version: str) -> bytes:
        if self.stat(key).version != version:
            raise changed(self.uri(key))
        return self.get(key)[start:end]

    def put(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(key), data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._lock:
            if self.exists(key):
                return False
            self.put(key, data)
            return True

    def exists(self, key: str) -> bool:
        return bool(self._fs.isfile(self._path(key)))

    def list(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.scan(prefix))

    def scan(self, prefix: str) -> Iterator[Entry]:
        folder = f"{self._base}/{clean_folder(prefix)}"
        for path, facts in sorted(self._fs.find(folder, detail=True).items()):
            if path.startswith(folder):
                modified = self._fs.modified(path).timestamp()
                yield Entry(path.removeprefix(f"{self._base}/"), facts["size"], modified)

    def leftovers(self) -> Iterator[Leftover]:
        return iter(())

    def discard(self, leftover: Leftover) -> None:
        """Nothing is ever left over here."""

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._base}/{clean_key(key)}"

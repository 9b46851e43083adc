"""A folder on this machine that keeps copies of remote inputs: checkpoints and tokenizers, read by mapping or by path.

Invariants: an entry's name is a digest of where it came from and of every file's size and version, so an entry never
goes stale; it appears with all its files or not at all; of many processes that want it one fetches and the others
wait; all entries together stay within ``max_bytes``. Memory is bounded by a few blocks.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.ids import digest
from gamecraft_core.base.store import Stat, Store

MAX_BYTES = 256 << 30

_BLOCK_BYTES = 16 << 20
_THREADS = 4
#: An entry used this recently may be in use: it is not evicted.
_IN_USE_S = 24 * 3600
_PARTIAL = ".partial-"


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/framelane/inputs``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "framelane", "inputs")


class InputCache:
    """Entries below ``folder``. Safe to share between processes of one machine."""

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder or default_folder()
        self._max_bytes = max_bytes

    def fetch(self, store: Store, files: Mapping[str, Stat], endpoint: str = "") -> Path:
        """The folder that holds ``files`` (keys of ``store``) under their keys; fetched unless it is there."""
        listing = sorted((key, stat.size, stat.version) for key, stat in files.items())
        name = digest([endpoint, store.root, listing], 32)
        entry = self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder / f"{name}.lock"):
            if not entry.is_dir():
                self._make_room(sum(stat.size for stat in files.values()))
                partial = self._folder / f"{_PARTIAL}{name}"
                shutil.rmtree(partial, ignore_errors=True)
                _download(store, files, partial)
                partial.rename(entry)
            os.utime(entry)
        return entry

    def _make_room(self, wanted: int) -> None:
        """Evict what was used longest ago until ``wanted`` bytes fit; a usage error where they cannot."""
        with _locked(self._folder / ".room.lock"):
            entries = sorted((path for path in self._folder.iterdir() if path.is_dir()), key=_used)
            sizes = {path: _size(path) for path in entries}
            held = sum(sizes.values())
            for path in entries:
                if held + wanted > self._max_bytes and time.time() - _used(path) > _IN_USE_S:
                    shutil.rmtree(path)
                    held -= sizes[path]
            free = min(self._max_bytes - held, shutil.disk_usage(self._folder).free)
        if wanted > free:
            raise UsageError(
                f"{wanted >> 20} MiB do not fit into the cache {self._folder} ({free >> 20} MiB left)",
                remedy="empty that folder, or copy the files to a local folder and name that",
            )


def _download(store: Store, files: Mapping[str, Stat], folder: Path) -> None:
    with ThreadPoolExecutor(_THREADS) as threads:
        for key, stat in files.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:

                def copy(start: int, key: str = key, stat: Stat = stat, descriptor: int = file.fileno()) -> None:
                    end = min(start + _BLOCK_BYTES, stat.size)
                    os.pwrite(descriptor, store.get_range(key, start, end, stat.version), start)

                os.truncate(file.fileno(), stat.size)
                list(threads.map(copy, range(0, stat.size, _BLOCK_BYTES)))
                os.fsync(file.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock at ``path``; the kernel frees it when a process dies."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _used(path: Path) -> float:
    return path.stat().st_mtime


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

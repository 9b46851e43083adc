"""Where a conversion puts its shards: a folder, or S3 through a scratch folder.

Invariant: a shard takes its name with all its bytes or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.store import Store, local_path
from gamecraft_core.base.store_s3 import S3Store


class Place(Protocol):
    """What a conversion needs of its target."""

    def require_room(self, sizes: Sequence[int]) -> None:
        """A UsageError where shards of ``sizes`` bytes will not fit."""

    def room(self, name: str) -> Path:
        """A local file to write a shard to before it takes its name."""

    def publish(self, path: Path, name: str) -> str:
        """Give the file at ``path`` its name; returns a tag that changes with the content ("" where there is none)."""

    def keeps(self, name: str, size: int, version: str) -> bool:
        """Whether the shard is there as far as size and tag tell."""

    def readable(self, name: str) -> Path | None:
        """The published shard as a local file, where it is one."""


@contextmanager
def shard_place(store: Store) -> Iterator[Place]:
    """The place that ``store`` stands for."""
    if isinstance(store, S3Store):
        with tempfile.TemporaryDirectory(prefix="framelane-convert-") as scratch:
            yield _Remote(store, Path(scratch))
    elif store.root.startswith("file://"):
        folder = local_path(store.root)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make {folder}: {error.strerror}", field="DST", remedy="name a folder") from error
        yield _Folder(folder)
    else:
        raise UsageError(f"cannot write shards to {store.root}", field="DST", remedy="name a folder or an s3:// URI")


@dataclass(frozen=True, slots=True)
class _Folder:
    """Shards in a local folder, written beside their name and renamed."""

    folder: Path

    def require_room(self, sizes: Sequence[int]) -> None:
        _require_free(self.folder, sum(sizes))

    def room(self, name: str) -> Path:
        return self.folder / f".tmp-{name}"

    def publish(self, path: Path, name: str) -> str:
        _sync(path)
        path.replace(self.folder / name)
        _sync(self.folder)
        return ""

    def keeps(self, name: str, size: int, version: str) -> bool:
        path = self.folder / name
        return path.is_file() and path.stat().st_size == size

    def readable(self, name: str) -> Path | None:
        return self.folder / name


@dataclass(frozen=True, slots=True)
class _Remote:
    """Shards on S3, each written to a scratch folder, uploaded and removed."""

    store: S3Store
    scratch: Path

    def require_room(self, sizes: Sequence[int]) -> None:
        _require_free(self.scratch, max(sizes, default=0))

    def room(self, name: str) -> Path:
        return self.scratch / name

    def publish(self, path: Path, name: str) -> str:
        self.store.upload(name, path)
        path.unlink()
        return self.store.stat(name).version

    def keeps(self, name: str, size: int, version: str) -> bool:
        try:
            found = self.store.stat(name)
        except FileNotFoundError:
            return False
        return (found.size, found.version) == (size, version)

    def readable(self, name: str) -> Path | None:
        return None


def _require_free(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise UsageError(
            f"{wanted >> 20} MiB do not fit into {folder} ({free >> 20} MiB left)",
            field="DST",
            remedy="free some space",
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The store: bytes under keys below one root (a folder, an S3 prefix, memory), with a conditional put.

Invariants: a key is visible with all its bytes or not at all; ``put_if_absent`` lets exactly one writer win; a key
cannot leave the root. The conditional put is each backend's own: a hard link on a local folder, ``If-None-Match: *``
on S3, a lock in memory. Roots and URIs follow fsspec's spelling: what comes after ``file://`` is the path itself,
never percent-encoded.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ENOSPC, ENOSYS, ENOTSUP, EPERM
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from gamecraft_core.base.access import Access
from gamecraft_core.base.errors import FramelaneError, StoreUnavailable, UsageError

SCHEMES = ("file", "s3", "memory")

_TEMPORARY = ".tmp-"
_NO_HARD_LINKS = (EPERM, ENOTSUP, ENOSYS)


@dataclass(frozen=True, slots=True)
class Stat:
    """What a store says of a key without reading it: bytes, and a tag that changes with the content."""

    size: int
    version: str


class Entry(NamedTuple):
    """What a listing says of a key: its bytes, and when they were put, in Unix seconds."""

    key: str
    size: int
    modified: float


class Leftover(NamedTuple):
    """Bytes that a broken write left unseen: a hidden file, or the parts of an unfinished ``upload`` to ``key``."""

    key: str
    size: int
    modified: float
    upload: str = ""


class Store(Protocol):
    """What the product needs from a place that keeps bytes. Keys are '/'-separated and relative to ``root``.

    ``get``, ``stat`` and ``get_range`` raise FileNotFoundError for an absent key. ``get_range`` returns the bytes
    ``start``..``end`` (not empty, within the size) of the content tagged ``version``, and raises StoreUnavailable where
    the key holds other content by now. ``put_if_absent`` tells whether this call made the key; where it
    raises StoreUnavailable the outcome is unknown, and a key it made must never be the target of a plain ``put``.
    ``list`` yields every key below the folder ``prefix`` ("" for all), in the order of the keys.
    """

    root: str

    def uri(self, key: str) -> str: ...
    def get(self, key: str) -> bytes: ...
    def stat(self, key: str) -> Stat: ...
    def get_range(self, key: str, start: int, end: int, version: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def put_if_absent(self, key: str, data: bytes) -> bool: ...
    def exists(self, key: str) -> bool: ...
    def list(self, prefix: str) -> Iterator[str]: ...
    def delete(self, key: str) -> None: ...


class Inspectable(Store, Protocol):
    """A store that can be looked over: everything it holds at a listing's cost, and what broken writes left in it.

    ``scan`` lists like ``list``. ``discard`` removes a leftover, if it is still there.
    """

    def scan(self, prefix: str) -> Iterator[Entry]: ...
    def leftovers(self) -> Iterator[Leftover]: ...
    def discard(self, leftover: Leftover) -> None: ...


def scheme_of(uri: str) -> str:
    """``file`` for a plain path; otherwise the URI's scheme, refused when it is not one of SCHEMES."""
    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    if scheme not in SCHEMES:
        raise UsageError(f"scheme {scheme!r} of {uri!r} is not supported", remedy=f"use one of {', '.join(SCHEMES)}")
    return scheme


def open_store(uri: str, options: Mapping[str, Any] | None = None) -> Inspectable:
    """A store rooted at ``uri`` (path, file://, s3://bucket/prefix, memory://).

    ``options``: see ``S3Options``, and ``access``: the rules of ``Access``.
    """
    Access.of(options).check(uri)
    scheme = scheme_of(uri)
    if scheme == "s3":
        from gamecraft_core.base.store_s3 import S3Options, S3Store

        return S3Store(uri, S3Options.of({name: value for name, value in (options or {}).items() if name != "access"}))
    if scheme == "memory":
        from gamecraft_core.base.store_memory import MemoryStore

        return MemoryStore(uri)
    return LocalStore(uri)


def local_path(uri: str) -> Path:
    """The absolute path that a plain path or a ``file://`` URI names."""
    path = uri.removeprefix("file://")
    if uri.startswith("file://") and not path.startswith("/"):
        raise UsageError(f"{uri!r} names a host, not a path", remedy="write a plain path or file:///ABSOLUTE/PATH")
    return Path(os.path.abspath(path))


def file_uri(path: str | Path) -> str:
    """The ``file://`` URI of a local path, taken literally as fsspec does: nothing is percent-encoded."""
    return f"file://{os.path.abspath(path)}"


def changed(uri: str) -> StoreUnavailable:
    """The error of a ``get_range`` that met other content than it was asked for."""
    return StoreUnavailable(f"{uri} changed while it was read", remedy="run again when nobody writes it")


def clean_key(key: str) -> str:
    """Refuse keys that could name something outside the root; callers build keys from checked ids only."""
    parts = key.split("/")
    if any(part in ("", ".", "..") or part.startswith(_TEMPORARY) or "\\" in part or "\0" in part for part in parts):
        raise ValueError(f"illegal store key {key!r}")
    return key


def clean_folder(prefix: str) -> str:
    """A listing's prefix as "" or "FOLDER/", refused like a key when it could leave the root."""
    return clean_key(prefix.rstrip("/")) + "/" if prefix else ""


class LocalStore:
    """A folder. Writes go to a hidden sibling first, then take their name in one step; both survive a power cut."""

    def __init__(self, uri: str) -> None:
        self._root = local_path(uri)
        self.root = f"file://{self._root}"

    def uri(self, key: str) -> str:
        return f"file://{self._path(key)}"

    def get(self, key: str) -> bytes:
        path = self._path(key)
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise FileNotFoundError(str(path)) from None
        except OSError as error:
            raise _local_error("read", path, error) from error

    def stat(self, key: str) -> Stat:
        path = self._path(key)
        if not path.is_file():
            raise FileNotFoundError(str(path))
        return _stat(path.stat())

    def get_range(self, key: str, start: int, end: int, version: str) -> bytes:
        self.stat(key)
        with open(self._path(key), "rb") as file:
            if _stat(os.fstat(file.fileno())).version != version:
                raise changed(self.uri(key))
            return os.pread(file.fileno(), end - start, start)

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._staged(path, data) as temporary:
            os.replace(temporary, path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        if path.exists():
            return False
        with self._staged(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return _rename_if_absent(temporary, path)
        return True

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        return (key for key, _ in self._files(prefix, hidden=False))

    def scan(self, prefix: str) -> Iterator[Entry]:
        return (Entry(key, *facts) for key, facts in self._measured(prefix, hidden=False))

    def leftovers(self) -> Iterator[Leftover]:
        return (Leftover(key, *facts) for key, facts in self._measured("", hidden=True))

    def discard(self, leftover: Leftover) -> None:
        folder, _, name = leftover.key.rpartition("/")
        if not name.startswith(_TEMPORARY):
            raise ValueError(f"not a temporary file: {leftover.key!r}")
        self._unlink(self._root / clean_folder(folder) / name)

    def delete(self, key: str) -> None:
        self._unlink(self._path(key))

    def _path(self, key: str) -> Path:
        return self._root / clean_key(key)

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _local_error("delete", path, error) from error

    def _files(self, prefix: str, *, hidden: bool) -> Iterator[tuple[str, os.DirEntry[str]]]:
        folder = clean_folder(prefix)
        for key, entry in _walk(self._root / folder, folder):
            if entry.name.startswith(_TEMPORARY) == hidden:
                yield key, entry

    def _measured(self, prefix: str, *, hidden: bool) -> Iterator[tuple[str, tuple[int, float]]]:
        for key, entry in self._files(prefix, hidden=hidden):
            try:
                found = entry.stat()
            except FileNotFoundError:  # removed since it was listed
                continue
            yield key, (found.st_size, found.st_mtime)

    @contextmanager
    def _staged(self, path: Path, data: bytes) -> Iterator[Path]:
        """``data`` on disk in a hidden sibling of ``path``; afterwards the sibling is gone and the folder synced."""
        temporary = path.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            _make_folder(path.parent)
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
            _sync_folder(path.parent)
        except OSError as error:
            raise _local_error("write", path, error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _stat(found: os.stat_result) -> Stat:
    return Stat(found.st_size, f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}")


def _walk(folder: Path | str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file below ``folder`` under its key, in the order of the keys: a folder sorts with the slash after it."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _local_error("list", Path(folder), error) from error
    for entry in entries:
        if not entry.is_dir():
            yield prefix + entry.name, entry
        elif not entry.is_symlink():
            yield from _walk(entry.path, f"{prefix}{entry.name}/")


def _make_folder(folder: Path) -> None:
    """mkdir -p whose every new entry is on disk when it returns."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename_if_absent(temporary: Path, path: Path) -> bool:
    """For filesystems without hard links: check and rename while the folder itself is locked (released by a crash)."""
    import fcntl

    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.exists():
            return False
        os.replace(temporary, path)
        return True
    finally:
        os.close(folder)


def _local_error(verb: str, path: Path, error: OSError) -> FramelaneError:
    message = f"cannot {verb} {path}: {error.strerror}"
    if error.errno == ENOSPC:
        return StoreUnavailable(message, remedy="free some space")
    return UsageError(message, remedy="check the path and its permissions")

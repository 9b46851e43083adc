"""The store: bytes under keys below one root, on any fsspec URI, with a conditional put.

Invariants: a key is visible with all its bytes or not at all; ``put_if_absent`` lets exactly one writer win; a key
cannot leave the root. Listing and reading go through fsspec. The conditional put is each backend's own: a hard link
on a local folder, ``If-None-Match: *`` on S3, a lock in memory.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from gamecraft_core.base.errors import StoreUnavailable, UsageError

SCHEMES = ("file", "s3", "memory")


class Store(Protocol):
    """What the product needs from a place that keeps bytes. Keys are '/'-separated and relative to ``root``."""

    root: str

    def uri(self, key: str) -> str: ...
    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def put_if_absent(self, key: str, data: bytes) -> bool: ...
    def exists(self, key: str) -> bool: ...
    def list(self, prefix: str) -> Iterator[str]: ...
    def delete(self, key: str) -> None: ...


def scheme_of(uri: str) -> str:
    """``file`` for a plain path; otherwise the URI's scheme, refused when it is not one of SCHEMES."""
    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    if scheme not in SCHEMES:
        raise UsageError(f"scheme {scheme!r} of {uri!r} is not supported", remedy=f"use one of {', '.join(SCHEMES)}")
    return scheme


def open_store(uri: str, options: Mapping[str, Any] | None = None) -> Store:
    """A store rooted at ``uri`` (path, file://, s3://bucket/prefix, memory://). ``options``: see ``S3Options``."""
    scheme = scheme_of(uri)
    if scheme == "s3":
        from gamecraft_core.base.store_s3 import S3Options, S3Store

        return S3Store(uri, S3Options(**(options or {})))
    return MemoryStore(uri) if scheme == "memory" else LocalStore(uri)


def clean_key(key: str) -> str:
    """Refuse keys that could name something outside the root; callers build keys from checked ids only."""
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise ValueError(f"illegal store key {key!r}")
    return key


class LocalStore:
    """A folder. Writes go to a hidden sibling first, then take their name in one step."""

    def __init__(self, uri: str) -> None:
        path = unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
        self._root = Path(path).absolute()
        self.root = self._root.as_uri()

    def uri(self, key: str) -> str:
        return self._path(key).as_uri()

    def get(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        temporary = self._stage(key, data)
        os.replace(temporary, self._path(key))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self._path(key).exists():
            return False
        temporary = self._stage(key, data)
        try:
            os.link(temporary, self._path(key))
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        base = self._root / prefix
        for folder, folders, files in os.walk(base):
            folders.sort()
            for name in sorted(files):
                if not name.startswith(".tmp-"):
                    yield (Path(folder) / name).relative_to(self._root).as_posix()

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self._root / clean_key(key)

    def _stage(self, key: str, data: bytes) -> Path:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".tmp-{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreUnavailable(f"cannot write {path}: {error.strerror}", remedy="free space or fix permissions") from error
        return temporary


class MemoryStore:
    """fsspec's in-process filesystem, for tests: it does not cross process boundaries."""

    _lock = threading.Lock()

    def __init__(self, uri: str) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        self._fs = MemoryFileSystem()
        self._base = "/" + uri.removeprefix("memory://").strip("/")
        self.root = "memory:/" + self._base

    def uri(self, key: str) -> str:
        return f"{self.root}/{clean_key(key)}"

    def get(self, key: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(key)))

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
        for path in sorted(self._fs.find(f"{self._base}/{prefix}".rstrip("/"))):
            yield path.removeprefix(self._base + "/")

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._base}/{clean_key(key)}"

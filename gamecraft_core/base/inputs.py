"""Reading what a user names by path or URI: bounded bytes, or a local copy, with errors that name the field."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from gamecraft_core.base.access import Access
from gamecraft_core.base.errors import BadInput, UsageError
from gamecraft_core.base.input_cache import InputCache
from gamecraft_core.base.store import Store, file_uri, local_path, open_store, scheme_of

#: Files that one folder of a checkpoint may hold; a larger listing is the wrong folder.
MAX_FILES = 2000

_THREADS = 8
_SHOWN = 200


def resolve(path: str, base: str) -> str:
    """Absolute URI of ``path``: a URI already, an absolute path, or a path relative to the folder at URI ``base``."""
    if "://" in path:
        return path
    if scheme_of(base) == "file":
        return file_uri(local_path(base) / path)
    return f"{base.rstrip('/')}/{path}"


def read_bytes(
    uri: str, field: str, *, max_bytes: int, options: Mapping[str, Any] | None = None, first: int | None = None
) -> bytes:
    """The content of ``uri``, or its ``first`` bytes.

    BadInput naming ``field`` where it may not be opened (``Access``), is missing, too large, or no plain file.
    """
    Access.of(options).check(uri, field, BadInput)
    if scheme_of(uri) == "file":
        return _read_local(local_path(uri), field, max_bytes, first)
    folder, _, name = uri.rpartition("/")
    store = open_store(folder, options)
    try:
        found = store.stat(name)
        if found.size > max_bytes:
            raise _too_large(uri, field, max_bytes)
        end = found.size if first is None else min(first, found.size)
        return store.get_range(name, 0, end, found.version) if end else b""
    except FileNotFoundError as error:
        raise BadInput(f"{_short(uri)} does not exist", field=field, remedy="check the path") from error


def file_size(uri: str, field: str, options: Mapping[str, Any] | None = None) -> int:
    """Bytes of the file at ``uri``; BadInput as for ``read_bytes``."""
    Access.of(options).check(uri, field, BadInput)
    if scheme_of(uri) == "file":
        with _opened(local_path(uri), field) as descriptor:
            return os.fstat(descriptor).st_size
    folder, _, name = uri.rpartition("/")
    try:
        return open_store(folder, options).stat(name).size
    except FileNotFoundError as error:
        raise BadInput(f"{_short(uri)} does not exist", field=field, remedy="check the path") from error


def local_copy(
    uri: str,
    options: Mapping[str, Any] | None = None,
    *,
    field: str = "",
    pick: Callable[[Iterable[str]], Sequence[str]] = list,
    cache: InputCache | None = None,
) -> Path:
    """A path on this machine with the content of the file or folder ``uri``; local ones are returned as they are.

    Remote ones are fetched into ``cache`` (default: the user's), once for each content; of a folder, the files that
    ``pick`` chooses among its keys. UsageError naming ``field`` where there is nothing at ``uri``.
    """
    Access.of(options).check(uri, field)
    if scheme_of(uri) == "file":
        return local_path(uri)
    uri = uri.rstrip("/")
    cache = cache or InputCache()
    endpoint = str((options or {}).get("endpoint_url") or "")
    parent, _, name = uri.rpartition("/")
    try:
        if not parent.endswith(("/", ":")):
            store = open_store(parent, options)
            return cache.fetch(store, {name: store.stat(name)}, endpoint) / name
    except FileNotFoundError:
        pass
    store = open_store(uri, options)
    keys = _keys(store, uri, field, pick)
    with ThreadPoolExecutor(_THREADS) as threads:
        return cache.fetch(store, dict(zip(keys, threads.map(store.stat, keys), strict=True)), endpoint)


def _keys(store: Store, uri: str, field: str, pick: Callable[[Iterable[str]], Sequence[str]]) -> Sequence[str]:
    # A key that ends in a slash is an empty object by which some tools mark a folder.
    found = list(islice((key for key in store.list("") if not key.endswith("/")), MAX_FILES + 1))
    if len(found) > MAX_FILES:
        raise UsageError(f"{uri} holds more than {MAX_FILES} files", field=field, remedy="name the folder itself")
    keys = pick(found)
    if not keys:
        raise UsageError(f"there is nothing to read at {uri}", field=field, remedy="correct the URI")
    return keys


def _read_local(path: Path, field: str, max_bytes: int, first: int | None) -> bytes:
    with _opened(path, field) as descriptor, open(descriptor, "rb", closefd=False) as file:
        # One byte more than allowed: files below /proc call themselves empty.
        data = file.read(max_bytes + 1 if first is None else first) or b""
        if max(os.fstat(descriptor).st_size, len(data)) > max_bytes:
            raise _too_large(str(path), field, max_bytes)
        return data


@contextmanager
def _opened(path: Path, field: str) -> Iterator[int]:
    """A descriptor of the plain file at ``path``; devices and pipes, which could block for ever, are not touched.

    What fails inside the block is reported in the same way.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadInput(f"{_short(path)} is not a file", field=field, remedy="name one file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise BadInput(f"{_short(path)} does not exist", field=field, remedy="check the path") from error
    except OSError as error:
        raise BadInput(f"cannot read {_short(path)}: {error.strerror}", field=field, remedy="check the path") from error


def _short(name: str | Path) -> str:
    """``name`` for a message: its ends, where it is long."""
    text = str(name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"


def _too_large(name: str, field: str, max_bytes: int) -> BadInput:
    return BadInput(f"{_short(name)} is larger than {max_bytes >> 20} MiB", field=field, remedy="give a smaller file")

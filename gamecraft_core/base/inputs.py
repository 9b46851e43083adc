"""Reading what a user names by path or URI: bounded bytes, or a local copy, with errors that name the field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from gamecraft_core.base.errors import BadInput, UsageError
from gamecraft_core.base.input_cache import InputCache
from gamecraft_core.base.store import Store, file_uri, local_path, open_store, scheme_of

#: Files that one folder of a checkpoint may hold; a larger listing is the wrong folder.
MAX_FILES = 2000

_THREADS = 8


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
    """The content of ``uri``, or its ``first`` bytes; BadInput naming ``field`` when missing or above ``max_bytes``."""
    if scheme_of(uri) == "file":
        return _read_local(local_path(uri), field, max_bytes)[:first]
    folder, _, name = uri.rpartition("/")
    store = open_store(folder, options)
    try:
        found = store.stat(name)
        if found.size > max_bytes:
            raise _too_large(uri, field, max_bytes)
        end = found.size if first is None else min(first, found.size)
        return store.get_range(name, 0, end, found.version) if end else b""
    except FileNotFoundError as error:
        raise BadInput(f"{uri} does not exist", field=field, remedy="check the path") from error


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


def _read_local(path: Path, field: str, max_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", field=field, remedy="check the path") from error
    if len(data) > max_bytes:
        raise _too_large(str(path), field, max_bytes)
    return data


def _too_large(name: str, field: str, max_bytes: int) -> BadInput:
    return BadInput(f"{name} is larger than {max_bytes >> 20} MiB", field=field, remedy="give a smaller file")

"""Reading what a user names by path or URI: bounded bytes from a local file or S3, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.store import file_uri, local_path, open_store, scheme_of


def resolve(path: str, base: str) -> str:
    """Absolute URI of ``path``: a URI already, an absolute path, or a path relative to the folder at URI ``base``."""
    if "://" in path:
        return path
    if scheme_of(base) == "file":
        return file_uri(local_path(base) / path)
    return f"{base.rstrip('/')}/{path}"


def read_bytes(uri: str, field: str, *, max_bytes: int, options: Mapping[str, Any] | None = None) -> bytes:
    """The whole content of ``uri``; BadInput naming ``field`` when it is missing or larger than ``max_bytes``."""
    if scheme_of(uri) == "file":
        return _read_local(local_path(uri), field, max_bytes)
    folder, _, name = uri.rpartition("/")
    try:
        data = open_store(folder, options).get(name)
    except FileNotFoundError as error:
        raise BadInput(f"{uri} does not exist", field=field, remedy="check the path") from error
    if len(data) > max_bytes:
        raise _too_large(uri, field, max_bytes)
    return data


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

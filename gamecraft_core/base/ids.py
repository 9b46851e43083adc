"""Identifiers: what a legal one looks like, and ids derived from content."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from gamecraft_core.base.errors import BadInput

_LEGAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}(\.[A-Za-z0-9_-]+)*\Z")
_MAX_LENGTH = 128


def check_id(value: str, field: str = "session_id") -> str:
    """Return ``value`` if it is safe as one segment of a store key, else raise BadInput naming ``field``."""
    if len(value) > _MAX_LENGTH or not _LEGAL.match(value):
        raise BadInput(
            f"{value[:60]!r} is not a legal id",
            field=field,
            remedy="use 1 to 128 letters, digits, '_', '-' and single inner dots, starting with a letter or digit",
        )
    return value


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """First ``length`` hex digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]

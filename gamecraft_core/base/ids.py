"""Identifiers: what a legal one looks like, and ids derived from content."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from gamecraft_core.base.errors import BadInput

_LEGAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}(\.[A-Za-z0-9_-]+)*\Z")
_MAX_LENGTH = 128
#: Names that mean devices on Windows, whatever comes after a dot.
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|\Z)")


def check_id(value: str, field: str = "session_id") -> str:
    """Return ``value`` if it is safe as one segment of a store key, else raise BadInput naming ``field``.

    Plain ASCII and nothing else: so no id looks like another one, turns text around or means a folder, on any file
    system. What differs only in capitals is told apart by ``folded``.
    """
    if len(value) > _MAX_LENGTH or not _LEGAL.match(value) or _DEVICES.match(value):
        raise BadInput(
            f"{value[:60]!r} is not a legal id",
            field=field,
            remedy="use 1 to 128 letters, digits, '_', '-' and single inner dots, starting with a letter or digit; "
            "no device name such as 'con'",
        )
    return value


def folded(value: str) -> str:
    """What ids have in common that some file systems take for the same name: they must not be in one output."""
    return value.lower()


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """First ``length`` hex digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]

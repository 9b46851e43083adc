"""Which places a run may read and write: the URIs that are well formed, and of those the ones its rules name.

Invariants: a URI that passes cannot leave the bucket and the prefix it names, and holds no credentials. Rules travel
within the options of a store (key ``access``), so that whoever opens a place has them at hand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gamecraft_core.base.errors import FramelaneError, UsageError
from gamecraft_core.base.redact import redact

_BUCKET = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}\Z")
_SET = "--set store.access."


@dataclass(frozen=True, slots=True)
class Access:
    """What may be opened. An empty list allows every one of its kind."""

    schemes: Sequence[str] = ()
    buckets: Sequence[str] = ()
    roots: Sequence[str] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Access:
        """The rules in a store's options; without any, everything well formed may be opened."""
        return cls(**((options or {}).get("access") or {}))

    def check(self, uri: str, field: str = "", error: type[FramelaneError] = UsageError) -> None:
        """Raise ``error`` naming ``field`` where ``uri`` is malformed or not among what may be opened."""
        problem = _malformed(uri) or self._denied(uri)
        if problem:
            raise error(problem[0], field=field, remedy=problem[1])

    def _denied(self, uri: str) -> tuple[str, str] | None:
        scheme, name = _parts(uri)
        if self.schemes and scheme not in self.schemes:
            allowed = ", ".join(self.schemes)
            return f"scheme {scheme!r} of {uri!r} may not be used", f"use one of {allowed}, or set {_SET}schemes"
        if scheme == "file":
            path = os.path.realpath(name)
            if self.roots and not any(_inside(path, os.path.realpath(root)) for root in self.roots):
                return f"{path} lies outside the folders that may be used", f"move it, or set {_SET}roots"
            return None
        bucket = name.partition("/")[0]
        if self.buckets and bucket not in self.buckets:
            return f"bucket {bucket!r} is not among those that may be used", f"name another, or set {_SET}buckets"
        return None


def _malformed(uri: str) -> tuple[str, str] | None:
    """(reason, remedy) where ``uri`` could mean something else to somebody than what it says."""
    scheme, name = _parts(uri)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in uri):
        return f"{redact(uri)[:80]!r} holds control characters", "correct the URI"
    if scheme == "file":
        return None
    bucket, _, key = name.partition("/")
    if "@" in bucket:
        return f"{uri!r} holds a user name or a password", "leave it out: credentials come from the environment"
    if "?" in name:
        return f"{uri!r} holds a query", "write SCHEME://BUCKET/KEY: signed addresses cannot be used"
    if scheme == "s3" and not _BUCKET.match(bucket):
        return f"{uri!r} names no legal bucket", "write s3://BUCKET/KEY"
    if {".", ".."} & set(key.split("/")):
        return f"{uri!r} has '.' or '..' in its path", "write the key itself"
    return None


def _parts(uri: str) -> tuple[str, str]:
    """Scheme as written (``file`` for a plain path), and what comes after ``://``."""
    scheme, colon, name = uri.partition("://")
    return (scheme, name) if colon else ("file", uri)


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")

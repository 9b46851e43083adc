"""The files a row names: found, bounded and looked into just far enough to refuse a bad one before any lane sees it.

Invariants: whatever is wrong with one file is a BadInput naming the field; only a store that cannot be reached, or a
machine on which no decoder starts, raises anything else. What was looked at is remembered, so a thousand rows that
share an image cost one look, and the second reading of a manifest costs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeVar

from gamecraft_core.base.access import Access
from gamecraft_core.base.errors import BadInput, StoreUnavailable, UsageError
from gamecraft_core.base.inputs import file_size, read_bytes, resolve
from gamecraft_core.base.store import scheme_of
from gamecraft_core.media import bounds
from gamecraft_core.media.sandbox import Sandbox, shared
from orchestrator.manifest.fields import shown

MAX_POSE_BYTES = 4 << 20

_REMEMBERED = 4096
#: Of an image, what is read for its header.
_HEADER_BYTES = 256 << 10

PoseRows = tuple[tuple[float, ...], ...]
Answer = TypeVar("Answer")


class Sources:
    """Looks at what rows name, relative to ``base_uri`` (the manifest's folder).

    ``options``: those of ``open_store``; headers are read in ``sandbox`` (default: this process's own).
    """

    def __init__(self, base_uri: str, options: Mapping[str, Any] | None = None, sandbox: Sandbox | None = None) -> None:
        self._base = base_uri
        self._options = options
        self._access = Access.of(options)
        self._sandbox = sandbox or shared()
        self._looked = _Looked()
        self._locate_once = lru_cache(_REMEMBERED)(self._locate)
        self._size_once = lru_cache(_REMEMBERED)(self._look_at_image)
        self._poses_once = lru_cache(_REMEMBERED)(self._read_poses)

    def locate(self, path: str, field: str) -> str:
        """Absolute URI of ``path``."""
        return _guarded(lambda: self._locate_once(path), path, field)

    def check_image(self, uri: str, field: str) -> None:
        """Refuse an image that is missing, too large, or has an unreadable header."""
        self._looked.once(uri, field, lambda: self.image_size(uri, field))

    def image_size(self, uri: str, field: str) -> tuple[int, int] | None:
        """(height, width) of an image as it is displayed; None where nobody looks."""
        return _guarded(lambda: self._size_once(uri), uri, field)

    def check_video(self, uri: str, field: str) -> None:
        """Refuse a clip that is missing, empty or too large; it is decoded where it is encoded, not here."""
        self._looked.once(uri, field, lambda: _guarded(lambda: self._look_at_video(uri), uri, field))

    def pose_rows(self, path: str, frames: int, field: str) -> PoseRows:
        """The first ``frames`` rows of the pose file at ``path``, and one more where it has one."""
        return _guarded(lambda: self._poses_once(self._locate_once(path), frames), path, field)

    def _locate(self, path: str) -> str:
        if not path.strip() or any(ord(character) < 32 for character in path):
            raise BadInput(f"{shown(path)} is not a path", remedy="name one file")
        uri = resolve(path, self._base)
        self._access.check(uri)
        if scheme_of(uri) != "file" and not all(uri.partition("://")[2].partition("/")[::2]):
            raise BadInput(f"{shown(path)} names no file", remedy="write SCHEME://BUCKET/KEY")
        return uri

    def _look_at_image(self, uri: str) -> tuple[int, int]:
        head = self._read(uri, first=_HEADER_BYTES)
        if not head:
            raise _empty(uri)
        try:
            return self._sandbox.image_size(head)
        except BadInput:
            if len(head) < _HEADER_BYTES:
                raise
            return self._sandbox.image_size(self._read(uri))  # some headers carry large profiles and previews

    def _look_at_video(self, uri: str) -> None:
        size = file_size(uri, "video", self._options)
        if not size:
            raise _empty(uri)
        if size > bounds.MAX_CLIP_BYTES:
            raise BadInput(f"{uri} is larger than {bounds.MAX_CLIP_BYTES >> 20} MiB", remedy="give a shorter clip")

    def _read(self, uri: str, first: int | None = None) -> bytes:
        return read_bytes(uri, "image", max_bytes=bounds.MAX_IMAGE_BYTES, options=self._options, first=first)

    def _read_poses(self, uri: str, frames: int) -> PoseRows:
        from gamecraft_core.timeline.poses import parse_pose_rows

        data = read_bytes(uri, "poses", max_bytes=MAX_POSE_BYTES, options=self._options)
        if not data:
            raise _empty(uri)
        try:
            return parse_pose_rows(data.decode("utf-8-sig").splitlines(), frames)[: frames + 1]
        except UnicodeDecodeError as error:
            raise BadInput(f"{uri} is not text", remedy="give rows of 19 numbers") from error
        except BadInput as error:
            raise BadInput(f"{uri}: {error.message}", remedy=error.remedy) from error


class _Looked:
    """Verdicts on files: of every one that passed a short digest, of the last that were refused the reason.

    Should two files ever share a digest, the second is judged where it is decoded.
    """

    def __init__(self) -> None:
        self._passed: set[int] = set()
        self._refused: dict[tuple[str, str], tuple[str, str]] = {}

    def once(self, uri: str, field: str, look: Callable[[], object]) -> None:
        """``look`` at ``uri`` as ``field`` unless that was done; a BadInput that it raised is raised again."""
        digest = int.from_bytes(blake2b(f"{field} {uri}".encode("utf-8", "surrogatepass"), digest_size=8).digest())
        if digest in self._passed:
            return
        if known := self._refused.get((uri, field)):
            raise BadInput(known[0], field=field, remedy=known[1])
        try:
            look()
        except BadInput as error:
            if len(self._refused) >= _REMEMBERED:
                del self._refused[next(iter(self._refused))]
            self._refused[uri, field] = (error.message, error.remedy)
            raise
        self._passed.add(digest)


def _empty(name: str) -> BadInput:
    return BadInput(f"{name} is empty", remedy="give a complete file within the limit")


def _guarded(look: Callable[[], Answer], name: str, field: str) -> Answer:
    """Run ``look``; whatever it finds wrong with this one file becomes a BadInput naming ``field``."""
    try:
        return look()
    except StoreUnavailable:
        raise
    except (BadInput, UsageError) as error:
        raise BadInput(error.message, field=field, remedy=error.remedy) from error
    except FileNotFoundError as error:
        raise BadInput(f"{name[:200]} does not exist", field=field, remedy="check the path") from error
    except OSError as error:
        reason = f"cannot read {name[:200]}: {error.strerror or error}"
        raise BadInput(reason, field=field, remedy="check the path") from error
    except ValueError as error:
        raise BadInput(f"{shown(name)} cannot be used ({error})", field=field, remedy="check its spelling") from error

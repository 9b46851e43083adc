"""The files a row names: found, bounded and looked into just far enough to refuse a bad one before any lane sees it.

Invariants: whatever is wrong with one file is a BadInput naming the field; only a store that cannot be reached raises
anything else. Answers are remembered, so a thousand rows that share an image cost one look.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, TypeVar

from gamecraft_core.base.errors import BadInput, StoreUnavailable, UsageError
from gamecraft_core.base.inputs import read_bytes, resolve
from gamecraft_core.base.store import local_path, open_store, scheme_of

MAX_IMAGE_BYTES = 64 << 20
MAX_VIDEO_BYTES = 512 << 20
MAX_POSE_BYTES = 4 << 20
#: Of a start image as given; it is scaled to the session's size.
MAX_SOURCE_PIXELS = 64_000_000

_REMEMBERED = 4096
#: Of a remote image, what is read for its header.
_HEADER_BYTES = 256 << 10

PoseRows = tuple[tuple[float, ...], ...]
Answer = TypeVar("Answer")


class Sources:
    """Looks at what rows name, relative to ``base_uri`` (the manifest's folder). ``options``: see ``S3Options``."""

    def __init__(self, base_uri: str, options: Mapping[str, Any] | None = None) -> None:
        self._base = base_uri
        self._options = options
        self._image_once = lru_cache(_REMEMBERED)(self._look_at_image)
        self._video_once = lru_cache(_REMEMBERED)(self._look_at_video)
        self._poses_once = lru_cache(_REMEMBERED)(self._read_poses)

    def locate(self, path: str, field: str) -> str:
        """Absolute URI of ``path``."""
        return _guarded(lambda: self._locate(path), path, field)

    def check_image(self, uri: str, field: str) -> None:
        """Refuse an image that is missing, too large, or has an unreadable header."""
        _guarded(lambda: self._image_once(uri), uri, field)

    def check_video(self, uri: str, field: str) -> None:
        """Refuse a clip that is missing, empty or too large; it is decoded where it is encoded, not here."""
        _guarded(lambda: self._video_once(uri), uri, field)

    def pose_rows(self, path: str, frames: int, field: str) -> PoseRows:
        """The first ``frames`` rows of the pose file at ``path``, and one more where it has one."""
        return _guarded(lambda: self._poses_once(self._locate(path), frames), path, field)

    def _locate(self, path: str) -> str:
        if not path.strip() or any(ord(character) < 32 for character in path):
            raise BadInput(f"{path[:80]!r} is not a path", remedy="name one file")
        uri = resolve(path, self._base)
        if scheme_of(uri) != "file" and not all(uri.partition("://")[2].partition("/")[::2]):
            raise BadInput(f"{path!r} names no file", remedy="write SCHEME://BUCKET/KEY")
        return uri

    def _look_at_image(self, uri: str) -> None:
        from gamecraft_core.media.image import header_check

        if scheme_of(uri) == "file":
            with open(_regular_file(uri, MAX_IMAGE_BYTES), "rb") as file:
                header_check(file, max_pixels=MAX_SOURCE_PIXELS)
            return
        read = partial(read_bytes, uri, "image", max_bytes=MAX_IMAGE_BYTES, options=self._options)
        try:
            header_check(read(first=_HEADER_BYTES), max_pixels=MAX_SOURCE_PIXELS)
        except BadInput:  # some headers carry large profiles and previews
            header_check(read(), max_pixels=MAX_SOURCE_PIXELS)

    def _look_at_video(self, uri: str) -> None:
        if scheme_of(uri) == "file":
            _regular_file(uri, MAX_VIDEO_BYTES)
            return
        folder, _, name = uri.rpartition("/")
        _check_size(uri, open_store(folder, self._options).stat(name).size, MAX_VIDEO_BYTES)

    def _read_poses(self, uri: str, frames: int) -> PoseRows:
        from gamecraft_core.timeline.poses import parse_pose_rows

        if scheme_of(uri) == "file":
            _regular_file(uri, MAX_POSE_BYTES)
        data = read_bytes(uri, "poses", max_bytes=MAX_POSE_BYTES, options=self._options)
        try:
            return parse_pose_rows(data.decode("utf-8-sig").splitlines(), frames)[: frames + 1]
        except UnicodeDecodeError as error:
            raise BadInput(f"{uri} is not text", remedy="give rows of 19 numbers") from error
        except BadInput as error:
            raise BadInput(f"{uri}: {error.message}", remedy=error.remedy) from error


def _regular_file(uri: str, max_bytes: int) -> str:
    """Local path behind ``uri``; BadInput unless it is a file of 1 to ``max_bytes`` bytes."""
    path = str(local_path(uri))
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path} is not a file", remedy="name one file")
    _check_size(path, status.st_size, max_bytes)
    return path


def _check_size(name: str, size: int, max_bytes: int) -> None:
    if not 0 < size <= max_bytes:
        problem = f"larger than {max_bytes >> 20} MiB" if size else "empty"
        raise BadInput(f"{name} is {problem}", remedy="give a complete file within the limit")


def _guarded(look: Callable[[], Answer], name: str, field: str) -> Answer:
    """Run ``look``; whatever it finds wrong with this one file becomes a BadInput naming ``field``."""
    try:
        return look()
    except StoreUnavailable:
        raise
    except (BadInput, UsageError) as error:
        raise BadInput(error.message, field=field, remedy=error.remedy) from error
    except FileNotFoundError as error:
        raise BadInput(f"{name} does not exist", field=field, remedy="check the path") from error
    except OSError as error:
        raise BadInput(
            f"cannot read {name}: {error.strerror or error}", field=field, remedy="check the path"
        ) from error
    except ValueError as error:
        raise BadInput(f"{name[:200]!r} cannot be used ({error})", field=field, remedy="check its spelling") from error

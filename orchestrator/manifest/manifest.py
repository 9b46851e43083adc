"""A manifest: the file whose rows are a run's sessions, read in order and as often as wanted.

Invariants: rows come in file order, each as a SessionSpec or as its errors; session ids are unique among the specs.
A local file is streamed; one from elsewhere is fetched once, so that its hash and its rows are of the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO

from gamecraft_core.base.access import Access
from gamecraft_core.base.errors import BadInput, UsageError
from gamecraft_core.base.ids import folded
from gamecraft_core.base.inputs import read_bytes
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import file_uri, local_path, scheme_of
from orchestrator.manifest.copies import written_out
from orchestrator.manifest.formats import RawRow, format_of, read_rows
from orchestrator.manifest.rows import RowError, RowErrors, RowReader, refused
from orchestrator.manifest.sources import Sources

#: Of a manifest that is fetched; local ones may have any size.
MAX_FETCHED_BYTES = 512 << 20
MAX_LISTED_ERRORS = 1000

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Survey:
    """What a manifest holds. ``errors`` is bounded; ``bad`` counts rows, all of them."""

    rows: int
    good: int
    bad: int
    chunks: int
    frames: int
    errors: tuple[RowError, ...]


@dataclass(frozen=True, slots=True)
class Repeated(RowErrors):
    """A row refused because its id is an earlier row's: what is stored under that id is not this row's."""


class _Unseen(Sources):
    """Sources that take the files of rows for granted: those rows are done with."""

    def check_image(self, uri: str, field: str) -> None:
        pass

    def check_video(self, uri: str, field: str) -> None:
        pass

    def image_size(self, uri: str, field: str) -> None:
        pass


class Manifest:
    """The rows of ``uri``, validated against ``presets``. ``options``: see ``S3Options``."""

    def __init__(
        self, uri: str, presets: Mapping[str, Preset], default_preset: str, options: Mapping[str, Any] | None = None
    ) -> None:
        self._format = format_of(uri)
        Access.of(options).check(uri, "manifest")
        self._local = scheme_of(uri) == "file"
        if self._local:
            uri = file_uri(local_path(uri))
        self.uri = uri
        self._options = options
        folder = uri.rpartition("/")[0]
        self._reader = RowReader(presets, default_preset, Sources(folder, options))
        self._trusting = RowReader(presets, default_preset, _Unseen(folder, options))

    def rows(self, settled: Collection[str] = ()) -> Iterator[SessionSpec | RowErrors]:
        """Every row in file order, one that asks for several videos so many times.

        Derived ids that repeat get -2, -3, ...; a given id that repeats is an error.

        Of sessions that have ``settled`` the images and videos are not looked at again.
        """
        taken: dict[str, int] = {}
        empty = True
        with self._open() as file:
            for raw in written_out(read_rows(file, self._format)):
                empty = False
                yield self._settle(raw, taken, settled)
        if empty:
            raise UsageError(f"{self.uri} has no rows", field="manifest", remedy="give at least one session")

    def sha256(self) -> str:
        """Hash of the file's bytes."""
        sha = hashlib.sha256()
        with self._open() as file:
            while block := file.read(_BLOCK):
                sha.update(block)
        return sha.hexdigest()

    def survey(self) -> Survey:
        """Read it all and count."""
        rows = good = chunks = frames = 0
        errors: list[RowError] = []
        for row in self.rows():
            rows += 1
            if isinstance(row, SessionSpec):
                good += 1
                chunks += row.num_chunks
                frames += row.num_frames
            else:
                errors += row.errors[: MAX_LISTED_ERRORS - len(errors)]
        return Survey(rows, good, rows - good, chunks, frames, tuple(errors))

    def _settle(self, raw: RawRow, taken: dict[str, int], settled: Collection[str]) -> SessionSpec | RowErrors:
        """Validate one row and see that its id is its own; ``taken`` counts the rows behind every id so far."""
        if raw.problem:
            return refused(raw.number, "", ("row", *raw.problem))
        result = self._known(raw, taken, settled) or self._reader.read(raw.cells, raw.number, raw.copy)
        name = result.session_id
        key = folded(name)
        repeated = bool(name) and key in taken
        taken[key] = taken.get(key, 0) + 1
        if not repeated:
            return result
        if isinstance(result, SessionSpec) and raw.cells.get("session_id") is None:
            return _with_free_id(result, taken)
        remedy = "give each its own, and more than other capitals"
        problem = RowError(raw.number, name, "session_id", f"{name!r} is the id of an earlier row", remedy)
        earlier = result.errors if isinstance(result, RowErrors) else ()
        return Repeated(raw.number, name, (*earlier, problem))

    def _known(self, raw: RawRow, taken: dict[str, int], settled: Collection[str]) -> SessionSpec | None:
        """The row as read without a look at its files, where its session has settled."""
        given = raw.cells.get("session_id")
        if not settled or (given is not None and not raw.copy and str(given) not in settled):
            return None
        result = self._trusting.read(raw.cells, raw.number, raw.copy)
        name = result.session_id
        return result if isinstance(result, SessionSpec) and name in settled and folded(name) not in taken else None

    def _open(self) -> BinaryIO:
        if not self._local:
            return io.BytesIO(self._fetched)
        path = local_path(self.uri)
        try:
            if not os.path.isfile(path):
                raise FileNotFoundError(2, "no such file")
            return open(path, "rb")
        except OSError as error:
            reason = f"cannot read {path}: {error.strerror}"
            raise UsageError(reason, field="manifest", remedy="check the path") from error

    @cached_property
    def _fetched(self) -> bytes:
        try:
            return read_bytes(self.uri, "manifest", max_bytes=MAX_FETCHED_BYTES, options=self._options)
        except BadInput as error:
            raise UsageError(error.message, field=error.field, remedy=error.remedy) from error


def _with_free_id(spec: SessionSpec, taken: dict[str, int]) -> SessionSpec:
    """``spec`` under the next free ID-2, ID-3, ...: rows of equal content stay separate sessions."""
    number = taken[folded(spec.session_id)]
    while folded(session_id := f"{spec.session_id}-{number}") in taken:
        number += 1
    taken[folded(session_id)] = 1
    return replace(spec, session_id=session_id)

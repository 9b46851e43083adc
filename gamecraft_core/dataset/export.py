"""Exports: a finished output rewritten in the layouts that training tools expect, at another root.

Invariants: only committed sessions are exported, in manifest order; a target that holds anything is refused, so an
export is whole or visibly unfinished; memory is bounded by one source shard and one video. The video bytes are copied
as they are, never encoded again. Imports pyarrow: import it late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.rows import read_table

Size = tuple[int, int]


@dataclass(slots=True)
class Exported:
    """What an export wrote, and how many sessions it left out: of another size, or without what the form needs."""

    sessions: int = 0
    frames: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """The committed sessions of ``store``; with ``size`` (height, width) only those of that size.

    ``filmed``: only those with a camera for every frame.
    """

    store: Store
    size: Size | None = None
    filmed: bool = False
    done: Exported = field(default_factory=Exported)

    def shards(self) -> Iterator[pa.Table]:
        """Tables of at least one session, counted in ``done`` as they go out."""
        for key in self.store.list(layout.DATA):
            table = read_table(self.store.get(key))
            rows = table.num_rows
            if self.size:
                table = table.filter(
                    (pa.compute.field("height") == self.size[0]) & (pa.compute.field("width") == self.size[1])
                )
            if self.filmed:
                table = table.filter(pa.compute.greater(pa.compute.list_value_length(table["camera_to_world"]), 0))
            self.done.left_out += rows - table.num_rows
            if table.num_rows:
                self.done.sessions += table.num_rows
                self.done.frames += sum(table["num_frames"].to_pylist())
                yield table

    def video(self, row: dict[str, Any]) -> bytes:
        """The session's mp4."""
        return self.store.get(row["video_path"])


def export(source: Store, target: Store, form: str, size: Size | None = None) -> Exported:
    """Write the sessions of ``source`` at ``target`` as ``form``: videofolder, webdataset or lerobot."""
    from gamecraft_core.dataset import export_lerobot, export_videofolder, export_webdataset

    writers: dict[str, Callable[[Source, Store], None]] = {
        "videofolder": export_videofolder.write,
        "webdataset": export_webdataset.write,
        "lerobot": export_lerobot.write,
    }
    if next(iter(target.list("")), None) is not None:
        raise UsageError(f"{target.root} is not empty", field="to", remedy="choose another target, or empty it")
    sessions = Source(source, size, filmed=form == "lerobot")
    writers[form](sessions, target)
    if not sessions.done.sessions:
        what = (f" of {size[0]}x{size[1]}" if size else "") + (" with a camera" if sessions.filmed else "")
        raise UsageError(f"{source.root} has no published session{what}", field="out", remedy="name a run's output")
    return sessions.done

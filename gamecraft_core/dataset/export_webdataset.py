"""WebDataset: tar shards in which files of one stem are one sample.

A sample is ``KEY.mp4``, ``KEY.json`` (every column that is not a video or an array) and one ``KEY.NAME.npy`` for each
per-frame array. KEY is the manifest row: ids may hold dots, at which WebDataset would cut them.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from gamecraft_core.base.store import Store
from gamecraft_core.dataset.export import Source

SHARD_BYTES = 256 << 20

_ARRAYS = ("camera_to_world", "intrinsics", "mouse")
_LEFT_OUT = ("video", "video_path", *_ARRAYS)


class _Shard:
    """The samples of the tar file that is being filled."""

    def __init__(self, target: Store) -> None:
        self._target = target
        self._number = 0
        self._files: dict[str, bytes] = {}
        self._bytes = 0

    def add(self, sample: dict[str, bytes]) -> None:
        """Take in a sample, which never spans two shards."""
        size = sum(map(len, sample.values()))
        if self._bytes + size > SHARD_BYTES:
            self.flush()
        self._files |= sample
        self._bytes += size

    def flush(self) -> None:
        """Store the shard and begin the next; an empty one is left out."""
        if not self._files:
            return
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in self._files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        self._target.put(f"train-{self._number:06d}.tar", buffer.getvalue())
        self._number += 1
        self._files, self._bytes = {}, 0


def write(source: Source, target: Store) -> None:
    """Write every session of ``source`` as one sample."""
    shard = _Shard(target)
    for table in source.shards():
        for position in range(table.num_rows):
            row = table.slice(position, 1).to_pylist()[0]
            shard.add(dict(_sample(row, source.video(row))))
    shard.flush()


def _sample(row: dict[str, Any], video: bytes) -> Iterator[tuple[str, bytes]]:
    key = f"{row['row']:09d}"
    yield f"{key}.mp4", video
    facts = {name: value for name, value in row.items() if name not in _LEFT_OUT}
    yield f"{key}.json", json.dumps(facts, ensure_ascii=False).encode()
    for name in _ARRAYS:
        with io.BytesIO() as buffer:
            np.save(buffer, np.array(row[name], np.float32))
            yield f"{key}.{name}.npy", buffer.getvalue()

"""Hugging Face's ``videofolder``: mp4 files beside a ``metadata.parquet`` whose ``file_name`` column names them.

One folder below ``train/`` for each source shard, so that no folder and no metadata file grows without bound.
"""

from __future__ import annotations

import pyarrow as pa

from gamecraft_core.base.store import Store
from gamecraft_core.dataset.export import Source
from gamecraft_core.dataset.rows import table_bytes

#: Columns that say where the video is in the source.
_PLACES = ["video", "video_path"]


def write(source: Source, target: Store) -> None:
    """Write every shard of ``source``: videos first, then the metadata that names them."""
    for number, table in enumerate(source.shards()):
        folder = f"train/{number:05d}"
        names = [f"{session_id}.mp4" for session_id in table["session_id"].to_pylist()]
        for name, row in zip(names, table.select(["video_path"]).to_pylist(), strict=True):
            target.put(f"{folder}/{name}", source.video(row))
        target.put(f"{folder}/metadata.parquet", table_bytes(_metadata(table, names)))


def _metadata(table: pa.Table, names: list[str]) -> pa.Table:
    kept = {key: value for key, value in table.schema.metadata.items() if key != b"huggingface"}
    columns = table.drop_columns(_PLACES).add_column(0, "file_name", pa.array(names))
    return columns.replace_schema_metadata(kept)

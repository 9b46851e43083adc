"""The Arrow schema of a session's row, with what readers need in its metadata.

Invariant: commit records and shards carry this schema, metadata included, and nothing else. The ``huggingface`` key is
derived from the Arrow types, so the two cannot disagree. Imports pyarrow: import this module late.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from gamecraft_core.base.messages import STAGES

SCHEMA_VERSION = 1

#: The form that Hugging Face decodes: ``path`` is absolute (a URI, or a plain path for a folder), ``bytes`` stays null.
VIDEO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

TIMINGS = pa.struct([(stage, pa.float64()) for stage in ("queue", *STAGES)])

_KEY = pa.struct([("action", pa.string()), ("speed", pa.float64())])

#: An action with its speed, or the path of a pose file, or several keys with the mouse; the others are null.
CONTROL = pa.struct(
    [
        ("action", pa.string()),
        ("speed", pa.float64()),
        ("poses", pa.string()),
        ("keys", pa.list_(_KEY)),
        ("mouse", pa.list_(pa.float64())),
    ]
)

CHUNK = pa.struct(
    [
        ("index", pa.int32()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("control", CONTROL),
        ("seed", pa.int64()),
        ("sp_degree", pa.int32()),
        ("timings", TIMINGS),
        ("latents_uri", pa.string()),
        ("latents_sha256", pa.string()),
        ("fragment_sha256", pa.string()),
    ]
)

CONVENTIONS = {
    "schema_version": SCHEMA_VERSION,
    "frames": "Per-frame lists have num_frames entries; entry i belongs to frame i of the video. They are empty where "
    "the model takes no camera. Chunks are listed as they were made; spans are half-open, [start, end), and are the "
    "frames that a chunk made final: none for the first of a video that is made from its end.",
    "camera_to_world": "12 numbers: the 3x4 matrix [R|t] row by row. It takes camera coordinates to the session's "
    "world, which is the camera of frame 0. Axes (OpenCV): x right, y down, z forward.",
    "camera_units": "The model's own, not metres: a move with speed 1 is 10 units a chunk.",
    "camera_chunks": "Chunks are composed: each starts where the motion of the one before it ends. The poses that the "
    "model saw for a chunk are inverse(pose[start]) @ pose[i] for start <= i < end.",
    "intrinsics": "fx, fy, cx, cy in pixels of the video.",
    "keys": "Movement keys held during the frame.",
    "mouse": "Degrees turned during the frame: right positive, up positive.",
    "latents": "Raw float32, little-endian, C order: [16, T, height/8, width/8], T from the size; a chunk's new "
    "latent frames only, and with chunks that overlap those before them that the next one looks at.",
    "timings": "Seconds; null where the stage did not run for the chunk.",
}


def _columns() -> pa.Schema:
    return pa.schema(
        [
            ("session_id", pa.string()),
            ("preset", pa.string()),
            ("prompt", pa.string()),
            ("num_frames", pa.int32()),
            ("fps", pa.int32()),
            ("video", VIDEO),
            ("video_path", pa.string()),
            ("video_sha256", pa.string()),
            ("video_bytes", pa.int64()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("keys", pa.list_(pa.list_(pa.string()))),
            ("mouse", pa.list_(pa.list_(pa.float32(), 2))),
            ("camera_to_world", pa.list_(pa.list_(pa.float32(), 12))),
            ("intrinsics", pa.list_(pa.list_(pa.float32(), 4))),
            ("chunks", pa.list_(CHUNK)),
            ("row", pa.int64()),
            ("tenant", pa.string()),
            ("start_kind", pa.string()),
            ("start_uri", pa.string()),
            ("negative_prompt", pa.string()),
            ("seed", pa.int64()),
            ("steps", pa.int32()),
            ("guidance", pa.float64()),
            ("shift", pa.float64()),
            ("sp_degree", pa.int32()),
            ("weights_fingerprint", pa.string()),
            ("code_version", pa.string()),
            ("hardware", pa.string()),
            ("status", pa.string()),
        ]
    )


def hf_features(schema: pa.Schema) -> dict[str, Any]:
    """The schema in the words of Hugging Face ``datasets`` (4 and later)."""
    return {field.name: _feature(field.type) for field in schema}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == VIDEO:
        return {"_type": "Video"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    dtype = {"float": "float32", "double": "float64"}.get(str(kind), str(kind))
    return {"dtype": dtype, "_type": "Value"}


def _with_metadata(schema: pa.Schema) -> pa.Schema:
    hugging_face = {"info": {"features": hf_features(schema)}}
    return schema.with_metadata({"huggingface": json.dumps(hugging_face), "framelane": json.dumps(CONVENTIONS)})


SESSION_SCHEMA = _with_metadata(_columns())

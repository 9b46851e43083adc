"""Small real recordings: synthetic frames encoded, staged and ready to commit."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.messages import ChunkRecord, CommitOrder, FloatArray, Fragment, WriteOrder
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import Store
from gamecraft_core.dataset.chunk_state import stage
from gamecraft_core.dataset.commit import latents_bytes
from gamecraft_core.media.fragment import encode_fragment
from gamecraft_core.timeline.spans import place, span
from tests.fakes.sessions import provenance, session

IDENTITY = "1d" * 16


def flat_frames(levels: list[int], height: int = 32, width: int = 48) -> npt.NDArray[np.uint8]:
    """Grey frames [len(levels), height, width, 3], one level each, so that a decoded frame tells its number."""
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), height, width, 3)).copy()


def level_of(frame_number: int, seed: int = 0) -> int:
    """The grey level that ``staged_order`` gives a frame: neighbours differ by far more than coding does."""
    return 30 + (frame_number * 37 + seed * 11) % 200


def staged_order(store: Store, name: str, chunks: int = 2, **changes: Any) -> CommitOrder:
    """A session whose chunks are encoded and all staged in ``store``; ``changes`` are fields of its spec."""
    spec = session(name, chunks, **changes)
    records: list[ChunkRecord] = []
    for order, fragment, latents in written_chunks(spec):
        records.append(stage(store, order, fragment.data, latents)[0])
    return CommitOrder(spec=spec, chunks=tuple(records), provenance=provenance(spec, 1))


def written_chunks(spec: SessionSpec) -> list[tuple[WriteOrder, Fragment, FloatArray]]:
    """What reaches the write lane of each chunk of ``spec``: a chain."""
    chunks, history_sha256 = spec.num_chunks, ""
    made = []
    for index, control in enumerate(spec.controls):
        start, end = span(spec.layout, spec.chunk_frames, chunks, index)
        fragment = Fragment(b"", 0, 0)
        if levels := [level_of(number, spec.seed) for number in range(start, end)]:
            frames, position = flat_frames(levels, spec.height, spec.width), place(spec.layout, chunks, index)
            fragment = encode_fragment(frames, index=position, start_frame=start, fps=spec.fps)
        latents = np.full((16, 2, 4, 6), index + spec.seed, np.float32)
        record = ChunkRecord(
            index=index,
            start=start,
            end=end,
            control=control.describe(),
            seed=spec.seed,
            sp_degree=1,
            timings={"queue": 0.5, "denoise": 1.25, "decode": 0.25},
            latents_uri=None,
            latents_sha256=hashlib.sha256(latents_bytes(latents)).hexdigest(),
        )
        order = WriteOrder(
            session_id=spec.session_id,
            index=index,
            identity=IDENTITY,
            history_sha256=history_sha256,
            record=record,
        )
        made.append((order, fragment, latents))
        history_sha256 = record.latents_sha256
    return made

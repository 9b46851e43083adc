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
    length, history_sha256 = spec.chunk_frames, ""
    made = []
    for index, control in enumerate(spec.controls):
        start = index * length
        levels = [level_of(number, spec.seed) for number in range(start, start + length)]
        fragment = encode_fragment(
            flat_frames(levels, spec.height, spec.width), index=index, start_frame=start, fps=spec.fps
        )
        latents = np.full((16, 2, 4, 6), index + spec.seed, np.float32)
        record = ChunkRecord(
            index=index,
            start=start,
            end=start + length,
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

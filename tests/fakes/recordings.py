"""Small real recordings: synthetic frames encoded, staged and ready to commit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.messages import ChunkRecord, CommitOrder
from gamecraft_core.base.store import Store
from gamecraft_core.dataset.commit import stage_fragment
from gamecraft_core.media.fragment import encode_fragment
from tests.fakes.sessions import provenance, session


def flat_frames(levels: list[int], height: int = 32, width: int = 48) -> npt.NDArray[np.uint8]:
    """Grey frames [len(levels), height, width, 3], one level each, so that a decoded frame tells its number."""
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), height, width, 3)).copy()


def level_of(frame_number: int, seed: int = 0) -> int:
    """The grey level that ``staged_order`` gives a frame: neighbours differ by far more than coding does."""
    return 30 + (frame_number * 37 + seed * 11) % 200


def staged_order(store: Store, name: str, chunks: int = 2, **changes: Any) -> CommitOrder:
    """A session whose chunks are encoded and staged in ``store``; ``changes`` are fields of its spec."""
    spec = session(name, chunks, **changes)
    length = spec.chunk_frames
    records = []
    for index, control in enumerate(spec.controls):
        start = index * length
        levels = [level_of(number, spec.seed) for number in range(start, start + length)]
        frames = flat_frames(levels, spec.height, spec.width)
        staged = stage_fragment(
            store, name, index, encode_fragment(frames, index=index, start_frame=start, fps=spec.fps)
        )
        records.append(
            ChunkRecord(
                index=index,
                start=start,
                end=start + length,
                control=control.describe(),
                seed=spec.seed,
                sp_degree=1,
                timings={"queue": 0.5, "denoise": 1.25, "decode": 0.25},
                latents_uri=None,
                latents_sha256=f"{index:064x}",
                fragment_key=staged.key,
                fragment_sha256=staged.sha256,
            )
        )
    return CommitOrder(spec=spec, chunks=tuple(records), provenance=provenance(spec, 1))

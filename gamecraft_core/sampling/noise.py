"""Every random draw of a session: a function of (seed, chunk index, purpose) and nothing else.

No generator outlives a draw and none is shared, so a chunk's noise is the same on any lane, in any order and after
any crash.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt

Purpose = Literal["start_noise", "image_posterior", "clip_posterior"]


def draw(seed: int, index: int, purpose: Purpose, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Standard normal float32 values; a counter-based generator keyed by the SHA-256 of the three names."""
    key = hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype="<u8", count=2)))
    return generator.standard_normal(shape, dtype=np.float32)

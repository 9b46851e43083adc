"""Is this machine itself today? A fixed load on one thread, compared with the best this machine ever did.

The best is kept in a small file in the user's cache folder, one entry a machine and interpreter. Benchmarks refuse to
judge while the machine is more than TOLERANCE below that best: somebody else is using it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench.machine import cpu_model

TOLERANCE = 0.20

_ROUNDS = 9
_WORDS = 4_000
_SIDE = 96
_PRODUCTS = 40


@dataclass(frozen=True)
class Calibration:
    """Loads a second: now, and the best on record (which ``now`` may have just become)."""

    now: float
    best: float

    @property
    def busy(self) -> bool:
        return self.now < (1 - TOLERANCE) * self.best


def calibrate(path: Path | None = None) -> Calibration:
    """Run the load, take its median speed and update the record at ``path``."""
    path = path or _record_path()
    now = 1 / statistics.median(_load() for _ in range(_ROUNDS))
    return remember(now, path)


def remember(now: float, path: Path) -> Calibration:
    """Compare ``now`` with the record and keep the better of the two. An unreadable record starts anew."""
    key = _machine_key()
    try:
        bests = {str(name): float(best) for name, best in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        bests = {}
    best = max(now, bests.get(key, 0.0))
    if best != bests.get(key):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({**bests, key: best}, indent=1))
        temporary.replace(path)
    return Calibration(now, best)


def _load() -> float:
    """Seconds for the fixed load: interpreter work (hashing, dictionaries, sorting) and small float32 products."""
    matrix = np.linspace(-1, 1, _SIDE * _SIDE, dtype=np.float32).reshape(_SIDE, _SIDE)
    began = time.perf_counter()
    counts: dict[str, int] = {}
    for number in range(_WORDS):
        word = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()[:3]
        counts[word] = counts.get(word, 0) + number
    sorted(counts.items(), key=lambda item: (item[1], item[0]))
    for _ in range(_PRODUCTS):
        matrix = np.tanh(matrix @ matrix)
    return time.perf_counter() - began


def _record_path() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "framelane" / "calibration.json"


def _machine_key() -> str:
    """A record holds for one machine, one interpreter and one definition of the load."""
    load = f"{_WORDS}/{_SIDE}/{_PRODUCTS}"
    return " | ".join(
        (platform.node(), cpu_model(), str(os.cpu_count()), platform.python_version(), np.__version__, load)
    )

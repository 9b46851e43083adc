"""Running statistics for normalising features: count, minimum, maximum, mean and deviation, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Moments:
    """Of one feature, per component: sums are enough, and in double precision they are exact enough."""

    count: int
    low: Floats
    high: Floats
    total: Floats
    squares: Floats

    def merged(self, other: _Moments) -> _Moments:
        return _Moments(
            self.count + other.count,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.total + other.total,
            self.squares + other.squares,
        )


@dataclass(slots=True)
class Stats:
    """Statistics of vectors [n, k], and of pictures per channel, scaled to 0..1 as their readers scale them."""

    _of: dict[str, _Moments] = field(default_factory=dict)
    _pictures: set[str] = field(default_factory=set)

    def add(self, name: str, values: npt.NDArray[Any]) -> None:
        """Take in vectors [n, k]."""
        x = np.asarray(values, np.float64)
        new = _Moments(len(x), x.min(0), x.max(0), x.sum(0), (x * x).sum(0))
        self._of[name] = self._of[name].merged(new) if name in self._of else new

    def add_pictures(self, name: str, pictures: npt.NDArray[np.uint8]) -> None:
        """Take in RGB pictures [n, H, W, 3]."""
        self._pictures.add(name)
        self.add(name, pictures.reshape(-1, 3) / 255)

    def result(self) -> dict[str, dict[str, Any]]:
        """By feature: lists of one number a component; for pictures in the shape [3, 1, 1]."""
        return {name: self._one(name, moments) for name, moments in self._of.items()}

    def _one(self, name: str, moments: _Moments) -> dict[str, Any]:
        mean = moments.total / moments.count
        spread = np.sqrt(np.maximum(moments.squares / moments.count - mean * mean, 0))
        shape = (-1, 1, 1) if name in self._pictures else (-1,)
        values = {"min": moments.low, "max": moments.high, "mean": mean, "std": spread}
        return {key: value.reshape(shape).tolist() for key, value in values.items()} | {"count": [moments.count]}

"""What a prediction says of one process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Role:
    """Bytes of a process: what it always holds, and the most that its work adds."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations

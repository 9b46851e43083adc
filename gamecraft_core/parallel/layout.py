"""How the ranks of a group share a denoise: the sequence among all, or guidance's two branches among two halves.

``Layout`` is a plain value (no torch is needed to make one); ``halve`` makes the process groups it asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gamecraft_core.parallel.collective import Collective


@dataclass(frozen=True, slots=True)
class Layout:
    """``world`` ranks; a ring of ``ring_degree`` over Ulysses; guided chunks split over two halves or not."""

    world: int = 1
    ring_degree: int = 1
    split_guidance: bool = False

    def __post_init__(self) -> None:
        if self.split_guidance and self.world % 2:
            raise ValueError(f"split_guidance needs an even number of ranks, not {self.world}")
        if self.sequence_degree % self.ring_degree:
            raise ValueError(
                f"ring_degree {self.ring_degree} does not divide the {self.sequence_degree} ranks of a sequence"
            )

    @property
    def sequence_degree(self) -> int:
        """Ranks that share the sequence of a guided chunk."""
        return self.world // 2 if self.split_guidance else self.world

    @property
    def ulysses_degree(self) -> int:
        return self.sequence_degree // self.ring_degree


#: One rank alone.
SOLO = Layout()


@dataclass(frozen=True, slots=True)
class Halves:
    """Two halves of a group as one rank sees them.

    ``own`` shares the sequence of this half's branch; ``across`` joins this rank (as rank 0 in the half of the
    unconditional branch, 1 in the other) to the one at its place in the other half.
    """

    own: Collective
    across: Collective


def halve() -> Halves:
    """Halves of the default process group. Every rank calls, in the same order as its other group calls."""
    import torch.distributed as dist

    from gamecraft_core.parallel.collective import Distributed, Solo

    rank, half = dist.get_rank(), dist.get_world_size() // 2
    halves = [dist.new_group(list(range(start, start + half))) for start in (0, half)] if half > 1 else []
    pairs = [dist.new_group([place, place + half]) for place in range(half)]
    own = Distributed(halves[rank // half]) if halves else Solo()
    return Halves(own, Distributed(pairs[rank % half]))

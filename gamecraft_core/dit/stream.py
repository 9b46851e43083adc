"""What surrounds the tokens of one denoise call: where they lie, which text goes with them.

Invariant: nothing here belongs to a module; it is made for a call (or a layout) and passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from gamecraft_core.parallel.shard import Shard

Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A prompt's real tokens: LLM ``states`` [tokens, text width] and ``pooled`` [pooled width].

    ``guidance`` is what a model with embedded guidance is told, on the scale of timesteps; None where there is none.
    """

    states: Tensor
    pooled: Tensor
    guidance: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """The video tokens' grid (time, height, width), this rank's shard of them, its rows of the rotary table.

    The grid's tokens are the last of the shard's total: others, that condition them and are no grid, may come before.
    ``keep`` is the first token, counted over all ranks, whose prediction is wanted; None asks for every row,
    those of the text in the last block included.
    """

    grid: Grid
    shard: Shard
    rope: Tensor
    keep: int | None = None

    @property
    def before(self) -> int:
        """Tokens before those of the grid."""
        return self.shard.total - math.prod(self.grid)

    @property
    def kept(self) -> slice:
        """This rank's rows of the joint tokens that the last block has to produce."""
        if self.keep is None:
            return slice(None)
        return slice(self.shard.local_index(self.keep), self.shard.local)

"""TeaCache: leave the blocks out while their input changes little, and repeat what they changed last. Approximate.

State belongs to one guidance branch of one denoise call. All ranks of a group come to the same decision, because
they judge the same sums. Method: Liu et al., arXiv 2411.19108; the polynomial is the one published for HunyuanVideo.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gamecraft_core.parallel.collective import Collective
from gamecraft_core.parallel.shard import Shard

#: From the relative change of the first block's input to that of the last one's output, highest power first.
POLYNOMIAL = (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896)


@dataclass(slots=True, eq=False)
class TeaCache:
    """Decides at each of ``steps`` calls; the blocks run when estimated changes add up to ``threshold``.

    ``ran`` says of every call so far whether they did.
    """

    threshold: float
    steps: int
    collective: Collective
    accumulated: float = 0.0
    ran: list[bool] = field(default_factory=list)
    _probe: Tensor | None = None
    _change: Tensor | None = None

    def kept(self, probe: Tensor, shard: Shard) -> Tensor | None:
        """What the blocks last added to the kept video rows, or None where they have to run.

        ``probe`` [local, hidden] is the first block's modulated input in this call.
        """
        before, self._probe = self._probe, probe
        run = before is None or len(self.ran) == self.steps - 1
        if before is not None and not run:
            self.accumulated += rescaled(self._relative_change(before, probe, shard))
            run = self.accumulated >= self.threshold
        if run:
            self.accumulated = 0.0
        self.ran.append(run)
        return None if run else self._change

    def keep(self, change: Tensor) -> None:
        """``change`` is what the blocks added in this call."""
        self._change = change

    def _relative_change(self, before: Tensor, after: Tensor, shard: Shard) -> float:
        """Sum of absolute changes over that of what was, over the real rows of all ranks."""
        rows = shard.local_index(shard.total)
        before, after = before[:rows], after[:rows]
        sums = [part.abs().sum(dtype=torch.float64) for part in (after - before, before)]
        changed, whole = self.collective.all_gather(torch.stack(sums)[None]).sum(0).tolist()
        return float(changed / whole)


def rescaled(change: float) -> float:
    """The polynomial's value at ``change``."""
    result = 0.0
    for coefficient in POLYNOMIAL:
        result = result * change + coefficient
    return result

"""UniPC, a multistep predictor and corrector (arXiv 2302.04867), on predictions of the clean latents.

In the form that FramePack samples by: time is ``-ln(sigma)`` alone, orders ramp up from 1, and the corrector uses the
prediction made at the predicted point instead of asking for another. The last sigma, 0, is never stepped to: what the
last call predicts to be clean is the result. Coefficients are computed in float64: in float32 they cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gamecraft_core.base.errors import BadInput

Variant = Literal["bh1", "bh2"]

#: The highest order, and the weight that orders without a system of their own take.
_ORDER, _HALF = 3, (0.5,)


@dataclass(frozen=True, slots=True)
class Update:
    """The step from one sigma to the next by as many predictions as its order, newest first.

    ``spacings``: where the older predictions lie, in step lengths from the newest. ``predictor`` has a weight for each
    of them; ``corrector`` one more, for the prediction at the step's end.
    """

    spacings: tuple[float, ...]
    shrink: float
    phi: float
    scale: float
    predictor: tuple[float, ...]
    corrector: tuple[float, ...]

    @property
    def order(self) -> int:
        return len(self.corrector)

    def apply(self, x: Tensor, clean: list[Tensor], arrived: Tensor | None = None) -> Tensor:
        """``x`` one step on. ``clean`` are the predictions, newest last; ``arrived`` the one at the step's end."""
        newest = clean[-1]
        slopes = [(old - newest) / spacing for old, spacing in zip(clean[-2::-1], self.spacings, strict=False)]
        weights = self.predictor
        if arrived is not None:
            slopes, weights = [*slopes, arrived - newest], self.corrector
        moved = self.shrink * x - self.phi * newest
        for weight, slope in zip(weights, slopes, strict=True):
            moved = moved - (self.scale * weight) * slope
        return moved


def update(sigmas: npt.NDArray[np.float32], step: int, order: int = _ORDER, variant: Variant = "bh1") -> Update:
    """The step from ``sigmas[step]``: of ``order`` at most, and of no more predictions than there are."""
    order = min(order, len(sigmas) - 2, step + 1)
    times = [-math.log(sigma) for sigma in sigmas[step + 1 - order : step + 2]]
    *older, now, then = times
    h = then - now
    spacings = [(time - now) / h for time in reversed(older)]
    phi = math.expm1(-h)
    scale = -h if variant == "bh1" else phi
    powers = np.vander([*spacings, 1.0], order, increasing=True).T
    moments, term = [], phi
    for k in range(1, order + 1):
        term = term / -h - 1 / math.factorial(k)
        moments.append(term * math.factorial(k) / scale)
    return Update(
        tuple(spacings),
        shrink=float(sigmas[step + 1]) / float(sigmas[step]),
        phi=phi,
        scale=scale,
        predictor=_HALF[: order - 1] if order < _ORDER else _solved(powers[:-1, :-1], moments[:-1]),
        corrector=_HALF if order == 1 else _solved(powers, moments),
    )


class UniPc:
    """One run over ``sigmas``, which fall from 1 or less to 0. ``latents`` are those of the latest step, corrected."""

    def __init__(self, sigmas: npt.NDArray[np.float32], variant: Variant = "bh1") -> None:
        if (np.diff(sigmas) >= 0).any():
            raise BadInput("UniPC goes from noise to none", field="flow_reverse", remedy="leave flow_reverse on")
        self._sigmas = sigmas
        self._updates = [update(sigmas, step, variant=variant) for step in range(len(sigmas) - 2)]
        self._clean: list[Tensor] = []
        self.latents: Tensor | None = None

    def __call__(self, latents: Tensor, velocity: Tensor, step: int) -> Tensor:
        """Where step ``step + 1`` predicts, from what ``step`` predicted at ``latents``; at last the result."""
        clean = latents.float() - float(self._sigmas[step]) * velocity.float()
        if self.latents is None:
            self.latents = latents.float()
        else:
            self.latents = self._updates[step - 1].apply(self.latents, self._clean, clean)
        self._clean = [*self._clean[1 - _ORDER :], clean]
        following = clean if step == len(self._updates) else self._updates[step].apply(self.latents, self._clean)
        return following.to(latents.dtype)


def _solved(matrix: npt.NDArray[np.float64], right: list[float]) -> tuple[float, ...]:
    return tuple(map(float, np.linalg.solve(matrix, right)))

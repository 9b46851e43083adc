"""The flow-match schedule: sigmas and timesteps, bit for bit those of the published float32 code.

Exactness matters: the time embedding's first frequency turns by one radian per unit of timestep, so an error of 2e-4
there is visible in the transformer's output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.errors import BadInput

FloatArray = npt.NDArray[np.float32]

#: The only step count for which the step cache is defined.
CACHE_STEPS = 50

#: FramePack's rule: the logarithm of the shift at two token counts, a line through them, and where it stops.
_FEW_TOKENS, _MANY_TOKENS = (256, 0.5), (4096, 1.15)
_MOST_SHIFT = 7.0


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """``sigmas`` [steps + 1] from 1 down to 0 (without reverse from 0 up), ``timesteps`` [steps] 0..1000; float32."""

    sigmas: FloatArray
    timesteps: FloatArray

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def make_schedule(steps: int, shift: float, *, reverse: bool = True, by_odds: bool = False) -> Schedule:
    """``shift * u / (1 + (shift - 1) * u)`` over ``u`` = 1..0 in equal steps; every operation rounds to float32.

    Without ``reverse``, a switch of the published command line that every documented command sets, a sigma is 1 less
    that: no released model is meant to run so. ``by_odds``: rounded in the order of FramePack's code, which shifts the
    odds of ``u``: the same numbers, but for their last bits.
    """
    if steps < 1:
        raise BadInput(f"{steps} steps are too few", field="steps", remedy="use 1 or more")
    if not (np.isfinite(shift) and shift > 0):
        raise BadInput(f"shift {shift} is not a positive number", field="shift", remedy="use a value such as 5.0")
    u = _unit_ramp(steps)
    if by_odds:
        with np.errstate(divide="ignore"):
            sigmas = np.float32(shift) * (np.float32(1) / (np.float32(shift) + (np.float32(1) / u - np.float32(1))))
    else:
        sigmas = np.float32(shift) * u / (np.float32(1) + np.float32(shift - 1) * u)
    if not reverse:
        sigmas = np.float32(1) - sigmas
    return Schedule(sigmas=sigmas, timesteps=sigmas[:-1] * np.float32(1000))


def shift_of_tokens(tokens: int) -> float:
    """FramePack's shift for a window of ``tokens`` video tokens, those of its history not counted: 7 from 8798 on."""
    (few, low), (many, high) = _FEW_TOKENS, _MANY_TOKENS
    return math.exp(min(low + (tokens - few) * (high - low) / (many - few), math.log(_MOST_SHIFT)))


def cached_steps(steps: int) -> frozenset[int]:
    """Steps that reuse the step cache: with 50 steps the odd ones from 11 to 39, otherwise none."""
    return frozenset(range(11, 40, 2)) if steps == CACHE_STEPS else frozenset()


def _unit_ramp(steps: int) -> FloatArray:
    """``torch.linspace(1, 0, steps + 1)``: a float32 increment, fused multiply-add from the nearer end.

    The fused operation rounds once. float64 holds the product of two float32 exactly, so computing there and
    rounding at the end gives the same bits.
    """
    points = steps + 1
    index = np.arange(points, dtype=np.float64)
    increment = np.float64(np.float32(-1) / np.float32(steps))
    from_start = 1.0 + increment * index
    from_end = -increment * (steps - index)
    return np.where(index < points // 2, from_start, from_end).astype(np.float32)

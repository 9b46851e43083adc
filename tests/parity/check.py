"""A case and its result: every comparison's largest error beside its tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from tests.parity.golden import Golden


@dataclass(frozen=True)
class Difference:
    """One comparison: a largest absolute error, infinite where shapes or values cannot be compared at all."""

    what: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance

    @property
    def share(self) -> float:
        """The error as a share of what is allowed."""
        if self.tolerance:
            return self.error / self.tolerance
        return math.inf if self.error else 0.0


class Check:
    """Collects a case's comparisons."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []

    def tensor(self, file: Golden, name: str, actual: Tensor, tolerance: float) -> None:
        """Compare with the whole stored tensor ``name``; a file may lack it, and then nothing is compared."""
        if name in file:
            self.close(name, actual, file.expected(name), tolerance)

    def close(self, what: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
        self.differences.append(Difference(what, largest_error(actual, expected), tolerance))

    def equal(self, what: str, actual: object, expected: object) -> None:
        """Compare what is no tensor: equal or not."""
        if actual == expected:
            self.differences.append(Difference(what, 0.0, 0.0))
        else:
            self.differences.append(Difference(f"{what} ({actual} != {expected})", math.inf, 0.0))


@dataclass(frozen=True, eq=False)
class Case:
    """A named piece of parity; it computes only when it is run."""

    name: str
    run: Callable[[Check], None]


@dataclass(frozen=True)
class Result:
    """What running a case gave: its worst comparison, and a reason for everything that failed."""

    name: str
    worst: Difference
    reasons: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.reasons

    @property
    def line(self) -> str:
        verdict = "PASS" if self.passed else "FAIL"
        return f"{verdict} {self.name} {self.worst.error:.3g} {self.worst.tolerance:g}"


def largest_error(actual: Tensor, expected: Tensor) -> float:
    """The largest absolute difference in float64; infinite where a shape differs or a value is not a number."""
    if actual.shape != expected.shape:
        return math.inf
    if not actual.numel():
        return 0.0
    error = float((actual.double() - expected.double()).abs().max())
    return math.inf if math.isnan(error) else error


def run(case: Case) -> Result:
    """Run ``case``. Whatever it raises is its failure: one damaged file must not hide the others."""
    check = Check()
    try:
        case.run(check)
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        return failure(case.name, f"{type(error).__name__}: {first_line}")
    if not check.differences:
        return failure(case.name, "nothing was compared")
    reasons = [
        f"{one.what}: error {one.error:.3g}, tolerance {one.tolerance:g}" for one in check.differences if not one.passed
    ]
    return Result(case.name, max(check.differences, key=lambda one: (one.share, one.error)), reasons)


def failure(name: str, reason: str) -> Result:
    """A failure that is no matter of numbers."""
    return Result(name, Difference(name, math.inf, 0.0), [reason])

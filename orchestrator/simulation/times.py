"""How long things take in a simulation: distributions, drawn from the simulation's one source of chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol


class Times(Protocol):
    """A distribution of seconds."""

    def draw(self, chance: Random) -> float: ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    seconds: float

    def draw(self, chance: Random) -> float:
        return self.seconds


@dataclass(frozen=True, slots=True)
class Uniform:
    """Anything between two bounds, all alike."""

    low: float
    high: float

    def draw(self, chance: Random) -> float:
        return self.low + (self.high - self.low) * chance.random()


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Around ``median``, with a tail: ``sigma`` is the standard deviation of the logarithm."""

    median: float
    sigma: float

    def draw(self, chance: Random) -> float:
        return self.median * math.exp(chance.gauss(0.0, self.sigma))


@dataclass(frozen=True, slots=True)
class Exponential:
    """Times between events that do not know of each other, ``mean`` seconds apart."""

    mean: float

    def draw(self, chance: Random) -> float:
        return chance.expovariate(1.0 / self.mean)


@dataclass(frozen=True, slots=True)
class Empirical:
    """One of the measured ``seconds``, all alike."""

    seconds: Sequence[float]

    def draw(self, chance: Random) -> float:
        return self.seconds[int(chance.random() * len(self.seconds))]

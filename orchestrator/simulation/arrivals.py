"""When sessions come: (seconds, session) pairs in any order. A trace is such a list already."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from gamecraft_core.base.spec import SessionSpec

Arrival = tuple[float, SessionSpec]


def at_once(specs: Iterable[SessionSpec], at: float = 0.0) -> list[Arrival]:
    return [(at, spec) for spec in specs]


def poisson(specs: Iterable[SessionSpec], per_second: float, seed: int = 0) -> list[Arrival]:
    """One after another, independently, ``per_second`` of them on average."""
    chance, now, arrivals = Random(seed), 0.0, []
    for spec in specs:
        now += chance.expovariate(per_second)
        arrivals.append((now, spec))
    return arrivals

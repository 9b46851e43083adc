"""What a plan is for: a goal in words, and the row that serves it best."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from gamecraft_core.base.errors import UsageError
from orchestrator.plan.predict import Row

_NAMES = ("throughput", "latency", "sessions=N@SECONDS")
_SESSIONS = re.compile(r"sessions=(\d{1,6})@(\d{1,6}(?:\.\d{1,6})?)s?")


@dataclass(frozen=True, slots=True)
class Goal:
    """``sessions`` live at once, each continuing chunk within ``slo`` seconds in 95 of 100 cases (None: no bound)."""

    kind: Literal["throughput", "latency", "sessions"]
    sessions: int = 1
    slo: float | None = None


def parse_goal(text: str) -> Goal:
    """``throughput``, ``latency`` or ``sessions=N@SECONDS``; anything else is refused with the nearest of them."""
    if text in ("throughput", "latency"):
        return Goal("throughput" if text == "throughput" else "latency")
    if (match := _SESSIONS.fullmatch(text)) and int(match[1]) >= 1 and float(match[2]) > 0:
        return Goal("sessions", int(match[1]), float(match[2]))
    if text.startswith("sessions"):
        raise UsageError(f"{text!r} is no goal", field="--goal", remedy="write for example sessions=4@30")
    near = get_close_matches(text, _NAMES, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(_NAMES)}"
    raise UsageError(f"unknown goal {text!r}", field="--goal", remedy=remedy)


@dataclass(frozen=True, slots=True)
class Choice:
    """The best row first; ``met`` is False where no layout keeps the goal's bound."""

    ranked: tuple[Row, ...]
    met: bool

    @property
    def winner(self) -> Row:
        return self.ranked[0]


def choose(goal: Goal, rows: Sequence[Row]) -> Choice:
    """Order ``rows`` by ``goal``. Where no row keeps its bound, the one that comes nearest is first."""
    keys: dict[str, Callable[[Row], tuple[float, ...]]] = {
        "throughput": lambda row: (-_made(row), row.latency_p50, row.first_chunk),
        "latency": lambda row: (*_rounded(row), row.first_chunk, -_made(row)),
        "sessions": lambda row: (
            (0.0, -_made(row), row.first_chunk) if _keeps(row, goal) else (1.0, row.latency_p95, -_made(row))
        ),
    }
    ranked = tuple(sorted(rows, key=keys[goal.kind]))
    return Choice(ranked, met=goal.slo is None or _keeps(ranked[0], goal))


def _made(row: Row) -> float:
    """Chunks an hour, to three digits: less is the end of a run."""
    return float(f"{row.chunks_per_hour:.3g}")


def _rounded(row: Row) -> tuple[float, float]:
    """Median and p95 to a millisecond: less is the noise of sums."""
    return round(row.latency_p50, 3), round(row.latency_p95, 3)


def _keeps(row: Row, goal: Goal) -> bool:
    return goal.slo is None or row.latency_p95 <= goal.slo

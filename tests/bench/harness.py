"""One habit for all benchmarks: figures in, lines and a JSON file out, a verdict where a goal is set.

A figure is ``ok`` or ``SHORT`` of its goal, ``-`` without one, ``skip`` where it cannot be measured here. A machine
that is busy (see ``calibration``) at the start or the end judges nothing: status 2, and the last results stay.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gamecraft_core.base.version import code_version
from tests.bench.calibration import Calibration, calibrate
from tests.bench.machine import hardware, versions

RESULTS = Path(__file__).parent / "results"

OK, SHORT, BUSY = 0, 1, 2

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Figure:
    """One measured number: the median of ``n`` samples with their interquartile range, and what it should be."""

    name: str
    unit: str
    n: int
    median: float
    iqr: float
    goal: float | None
    better: Better

    @property
    def verdict(self) -> Literal["ok", "SHORT", "-"]:
        if self.goal is None:
            return "-"
        met = self.median <= self.goal if self.better == "lower" else self.median >= self.goal
        return "ok" if met else "SHORT"  # NaN meets no goal

    def cells(self, judge: bool) -> tuple[str, ...]:
        sign = "<=" if self.better == "lower" else ">="
        goal = "-" if self.goal is None else f"{sign}{self.goal:.4g}"
        return self.name, f"{self.median:.4g}", self.unit, goal, self.verdict if judge else "-"

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Skipped:
    """A figure that cannot be measured here, and why. Never counts as ok."""

    name: str
    reason: str

    def cells(self, judge: bool) -> tuple[str, ...]:
        return self.name, "-", "-", "-", f"skip ({self.reason})"

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "verdict": "skip", "reason": self.reason}


class Bench:
    """Collects the figures of one benchmark; ``finish`` prints and stores them and returns the exit status."""

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any] | None = None,
        *,
        results: Path = RESULTS,
        calibration: Callable[[], Calibration] = calibrate,
    ) -> None:
        self.name = name
        self._config = dict(config or {})
        self._results = results
        self._calibrate = calibration
        self._entries: list[Figure | Skipped] = []
        self._before = calibration()

    def figure(
        self,
        name: str,
        value: float | Sequence[float],
        unit: str,
        *,
        goal: float | None = None,
        better: Better = "lower",
    ) -> Figure:
        """Note a number, or the samples it is the median of."""
        samples = [float(value)] if isinstance(value, int | float) else [float(sample) for sample in value]
        entry = Figure(name, unit, len(samples), statistics.median(samples), _iqr(samples), goal, better)
        self._entries.append(entry)
        return entry

    def skip(self, name: str, reason: str) -> None:
        """Note a figure that cannot be measured here."""
        self._entries.append(Skipped(name, reason))

    def finish(self) -> int:
        """Print a line a figure; 2 when busy, 1 when a figure is short and CHECK is set, else 0."""
        slowest = min(self._before, self._calibrate(), key=lambda calibration: calibration.now / calibration.best)
        print(_table([entry.cells(not slowest.busy) for entry in self._entries]), flush=True)
        if slowest.busy:
            share = slowest.now / slowest.best
            print(f"BUSY: the calibration loop runs at {share:.0%} of its best on this machine; nothing judged or kept")
            return BUSY
        self._store(slowest)
        short = any(isinstance(entry, Figure) and entry.verdict == "SHORT" for entry in self._entries)
        return SHORT if short and os.environ.get("CHECK", "") not in ("", "0") else OK

    def _store(self, calibration: Calibration) -> None:
        self._results.mkdir(parents=True, exist_ok=True)
        content = {
            "name": self.name,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": code_version(),
            "config": self._config,
            "hardware": hardware(),
            "versions": versions(),
            "calibration": asdict(calibration),
            "figures": [entry.record() for entry in self._entries],
        }
        (self._results / f"{self.name}.json").write_text(json.dumps(content, indent=1) + "\n")


def timed(call: Callable[[], Any], n: int, *, warm_up: int = 1) -> list[float]:
    """Wall seconds of ``n`` calls after ``warm_up`` that are not counted."""
    for _ in range(warm_up):
        call()
    samples = []
    for _ in range(n):
        began = time.perf_counter()
        call()
        samples.append(time.perf_counter() - began)
    return samples


def _iqr(samples: Sequence[float]) -> float:
    """Distance between the quartiles; 0 for a single sample."""
    if len(samples) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return upper - lower


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

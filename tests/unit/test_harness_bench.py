"""The benchmarks' habit: lines, verdicts, JSON, statuses, and no judgement on a busy machine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench import __main__ as runner
from tests.bench.calibration import Calibration, calibrate, remember
from tests.bench.harness import BUSY, OK, SHORT, Bench

QUIET = Calibration(now=95.0, best=100.0)
LOADED = Calibration(now=79.0, best=100.0)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    def make(*calibrations: Calibration) -> Bench:
        answers = iter(calibrations or (QUIET, QUIET))
        return Bench("sample", {"size": 3}, results=tmp_path / "results", calibration=lambda: next(answers))

    return make


def stored(tmp_path: Path) -> dict[str, Any]:
    content = json.loads((tmp_path / "results" / "sample.json").read_text())
    assert isinstance(content, dict)
    return content


def test_a_line_a_figure_in_columns(bench: Callable[..., Bench], capsys: pytest.CaptureFixture[str]) -> None:
    sample = bench()
    sample.figure("startup", [0.5, 0.6, 0.9], "s", goal=0.7)
    sample.figure("rate", 10, "1/s", goal=12, better="higher")
    sample.figure("plain", 1.0, "x")
    sample.skip("gpu_step", "no GPU")
    assert sample.finish() == OK
    assert capsys.readouterr().out.splitlines() == [
        "startup   0.6  s    <=0.7  ok",
        "rate      10   1/s  >=12   SHORT",
        "plain     1    x    -      -",
        "gpu_step  -    -    -      skip (no GPU)",
    ]


@pytest.mark.parametrize(("check", "status"), [("", OK), ("0", OK), ("1", SHORT)])
def test_check_turns_a_short_figure_into_a_status(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, check: str, status: int
) -> None:
    monkeypatch.setenv("CHECK", check)
    sample = bench()
    sample.figure("startup", 0.8, "s", goal=0.7)
    assert sample.finish() == status


@pytest.mark.parametrize(
    ("value", "goal", "better", "verdict"),
    [(1, 1, "lower", "ok"), (1, 1, "higher", "ok"), (2, 1, "lower", "SHORT"), (math.nan, 1, "higher", "SHORT")],
)
def test_verdicts(bench: Callable[..., Bench], value: float, goal: float, better: Any, verdict: str) -> None:
    assert bench().figure("f", value, "s", goal=goal, better=better).verdict == verdict


def test_the_file_tells_how_it_was_measured(bench: Callable[..., Bench], tmp_path: Path) -> None:
    sample = bench()
    sample.figure("startup", [4.0, 1.0, 2.0, 3.0, 100.0], "s")
    sample.skip("gpu_step", "no GPU")
    sample.finish()
    content = stored(tmp_path)
    assert content["config"] == {"size": 3}
    assert content["calibration"] == {"now": 95.0, "best": 100.0}
    assert content["commit"].startswith("0.")
    assert content["hardware"]["cores"] > 0
    assert content["versions"]["numpy"]
    startup, gpu = content["figures"]
    assert (startup["n"], startup["median"], startup["iqr"]) == (5, 3.0, 2.0)
    assert gpu == {"name": "gpu_step", "verdict": "skip", "reason": "no GPU"}


@pytest.mark.parametrize("calibrations", [(LOADED, QUIET), (QUIET, LOADED)])
def test_a_busy_machine_judges_and_keeps_nothing(
    bench: Callable[..., Bench],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calibrations: tuple[Calibration, Calibration],
) -> None:
    monkeypatch.setenv("CHECK", "1")
    sample = bench(*calibrations)
    sample.figure("startup", 0.8, "s", goal=0.7)
    assert sample.finish() == BUSY
    figure, busy = capsys.readouterr().out.splitlines()
    assert figure.split() == ["startup", "0.8", "s", "<=0.7", "-"]
    assert busy.startswith("BUSY: the calibration loop runs at 79% of its best")
    assert not (tmp_path / "results").exists()


def test_the_best_on_this_machine_is_remembered(tmp_path: Path) -> None:
    record = tmp_path / "cache" / "calibration.json"
    assert remember(50.0, record) == Calibration(50.0, 50.0)
    assert remember(100.0, record) == Calibration(100.0, 100.0)
    assert remember(81.0, record) == Calibration(81.0, 100.0)
    assert not remember(81.0, record).busy
    assert remember(79.0, record).busy
    record.write_text("not JSON")
    assert remember(10.0, record) == Calibration(10.0, 10.0)
    assert [path.name for path in record.parent.iterdir()] == ["calibration.json"]


def test_the_load_runs(tmp_path: Path) -> None:
    calibration = calibrate(tmp_path / "calibration.json")
    assert 0 < calibration.now <= calibration.best


def test_an_unknown_benchmark_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["nope"]) == SHORT
    assert "startup, store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("statuses", "status"), [((0, 0), OK), ((0, 2), BUSY), ((2, 1), SHORT), ((0, -9), SHORT), ((3, 0), SHORT)]
)
def test_the_worst_status_counts(monkeypatch: pytest.MonkeyPatch, statuses: tuple[int, int], status: int) -> None:
    answers = iter(statuses)
    monkeypatch.setattr(runner, "_run", lambda name, timeout_s: next(answers))
    assert runner.main(["startup", "store"]) == status

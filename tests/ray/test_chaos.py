"""A dozen faults on a cluster and a store of their own: the small form of ``make chaos``, judged by its own report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.schedule import draw
from tests.ray.runs import ROOT

FAULTS, SEED = 12, 1


@pytest.mark.ray
@pytest.mark.service
def test_a_dozen_faults_change_nothing_but_the_time(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--faults", str(FAULTS), "--seed", str(SEED)]
    ended = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    said = ended.stdout + ended.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert (ended.returncode, report["problems"]) == (0, []), said
    assert len(report["struck"]) >= FAULTS
    assert {fault.title for fault in draw(SEED, FAULTS)} <= report["counts"].keys()
    assert all(set(each["readers"].values()) == {"ok"} for each in report["rounds"])
    assert (tmp_path / "timeline.svg").read_text().count("<title>") > FAULTS

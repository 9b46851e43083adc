"""``python -m jobs.doctor``: what it says, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gamecraft_core.base.store import LocalStore
from gamecraft_core.dataset import claim, layout
from jobs import doctor
from tests.fakes.outputs import COMMITTED, DIGEST, PLANTS, plant, run_record


def run_doctor(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    status = doctor.main([*argv])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_the_command_says_what_it_found_and_did(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--out", str(out)]
    status, said = run_doctor(capsys, *command)
    assert (status, "healthy; 4 sessions committed, 1 failed, 4 published in 3 shards" in said) == (0, True)
    for each in PLANTS:
        plant(out, each.key)
    status, said = run_doctor(capsys, *command)
    assert (status, "not healthy" in said, layout.video_key(DIGEST) in said) == (3, True, True)
    status, said = run_doctor(capsys, *command, "--repair")
    assert (status, "removed 2" in said) == (0, True)
    status, said = run_doctor(capsys, *command, "--repair", "--json")
    document: dict[str, Any] = json.loads(said)
    assert (status, document["healthy"], document["run"]["status"]) == (0, True, "finished")
    assert document["sessions"] == {"committed": len(COMMITTED), "failed": 1, "published": len(COMMITTED)}
    assert [(each["kind"], each["count"]) for each in document["findings"]] == [("unknown", 6)]


def test_the_command_leaves_what_is_young(store: LocalStore, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim.finish(store, run_record("running"))
    plant(out, layout.video_key(DIGEST), 600)
    for options, status, left in ((["--repair"], 0, True), (["--min-age", "5m"], 3, True), (["--repair"], 0, True)):
        assert run_doctor(capsys, "--out", str(out), *options)[0] == status
        assert (out / layout.video_key(DIGEST)).exists() == left
    status, said = run_doctor(capsys, "--out", str(out), "--repair", "--min-age", "5m")
    assert (status, "removed 1" in said) == (0, True)
    assert not (out / layout.video_key(DIGEST)).exists()


def test_ages() -> None:
    assert [doctor.age(text) for text in ("0", "90s", "30m", "2h", "1d")] == [0, 90, 1800, 7200, 86400]


def test_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor(capsys, "--out", str(tmp_path))[0] == 2
    ages = ("", "1", "h", "-1h", "1w", "1.5h", "2h ", "soon")
    for wrong in ([], *(["--out", "x", f"--min-age={age}"] for age in ages)):
        with pytest.raises(SystemExit) as ended:
            doctor.main(wrong)
        assert ended.value.code == 2

"""What a submission takes along, how it is followed, and what is refused before anything is sent."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from gamecraft_core.base.errors import FramelaneError, UsageError
from gamecraft_core.base.version import code_version
from jobs import following, submit, submitted
from jobs.config import FLEETS, PRESETS, load_fleet, load_preset
from jobs.following import Followed, follow
from jobs.packing import Luggage, pack_code


def test_the_packed_code_runs_and_says_which_version_it_is(tmp_path: Path) -> None:
    pack_code(tmp_path)
    assert not list(tmp_path.rglob("__pycache__"))
    program = (
        "from jobs import synthesize, submitted; from gamecraft_core.base.version import code_version as v; print(v())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_version()


def test_places_are_made_absolute_and_uris_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    luggage = Luggage(tmp_path / "box")
    given = ["--manifest", "rows.jsonl", "--out=s3://b/o", "--preset", "tiny-gamecraft", "--set", "sampling.steps=2"]
    given += ["--set", "preset.weights.dit=w/dit", "--set=weights.vae=s3://b/vae", "--run-id", "rows.jsonl", "--strict"]
    told = luggage.arguments(given)
    assert told[:5] == ["--manifest", f"{tmp_path}/rows.jsonl", "--out=s3://b/o", "--preset", "tiny-gamecraft"]
    assert told[5:9] == ["--set", "sampling.steps=2", "--set", f"preset.weights.dit={tmp_path}/w/dit"]
    assert told[9:] == ["--set=weights.vae=s3://b/vae", "--run-id", "rows.jsonl", "--strict"]
    assert luggage.left == [f"{tmp_path}/rows.jsonl", f"{tmp_path}/w/dit"]


def test_what_is_packed_is_named_where_it_will_lie(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "rows.jsonl").write_text("{}")
    luggage = Luggage(tmp_path / "box", [str(inputs)])
    luggage.pack()
    assert luggage.arguments(["--manifest", str(inputs / "rows.jsonl")]) == ["--manifest", "packed/inputs/rows.jsonl"]
    assert (tmp_path / "box/packed/inputs/rows.jsonl").read_text() == "{}"
    assert luggage.left == []


@pytest.mark.parametrize("packs", [["a/x", "b/x"], ["a/nothing"]])
def test_what_cannot_be_packed_is_refused(tmp_path: Path, packs: Sequence[str]) -> None:
    for name in ("a/x", "b/x"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        Luggage(tmp_path / "box", [str(tmp_path / name) for name in packs]).pack()
    assert caught.value.field == "pack"


def test_presets_and_fleets_of_ones_own_travel_whole(tmp_path: Path) -> None:
    """Their relative paths would mean something else where they arrive."""
    mine = yaml.safe_load((PRESETS / "micro-gamecraft.yaml").read_text()) | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    fleet = yaml.safe_load((FLEETS / "demo.yaml").read_text()) | {"presets": [str(tmp_path / "mine.yaml")]}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    box = tmp_path / "box"
    luggage = Luggage(box)
    told = luggage.arguments(["--preset", str(tmp_path / "mine.yaml"), "--fleet", str(tmp_path / "fleet.yaml")])
    assert told[1::2] == ["config/presets/mine.yaml", "config/fleets/fleet.yaml"]
    assert load_preset(str(box / told[1])) == load_preset(str(tmp_path / "mine.yaml"))
    assert load_preset(str(box / told[1])).weights.dit == str(tmp_path / "micro_weights/dit.safetensors")
    assert load_fleet(str(box / told[3])).presets == ("config/presets/mine.yaml",)
    assert str(tmp_path / "micro_weights/dit.safetensors") in luggage.left


@pytest.mark.parametrize(
    ("job", "arguments", "status"),
    [
        ("doctor", ["--out", "/nowhere/at/all"], 2),
        ("doctor", ["--no-such-option"], 2),
        ("synthesize", ["--help"], 0),
    ],
)
def test_a_submitted_jobs_last_line_says_how_it_ended(
    job: str, arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submitted.main([job, *arguments]) == status
    last = capsys.readouterr().err.splitlines()[-1]
    assert submitted.status_in(last) == status
    assert submitted.status_in(f"said: {last}") is None


class Cluster:
    """A job API whose connections break after each of ``pieces`` but the last; every one starts the log anew."""

    def __init__(self, pieces: Sequence[str], state: str = "RUNNING", away: bool = False) -> None:
        self._pieces, self._state, self._away = pieces, state, away
        self._tails = 0
        self.stopped: list[str] = []

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        if self._away:
            raise ConnectionError("refused")
        self._tails += 1
        for piece in self._pieces[: self._tails]:
            yield piece
        if self._tails < len(self._pieces):
            raise RuntimeError("the connection broke")

    def get_job_info(self, name: str) -> SimpleNamespace:
        status = SimpleNamespace(value=self._state, is_terminal=lambda: self._state != "RUNNING")
        return SimpleNamespace(status=status, message="killed\nand more")

    def stop_job(self, name: str) -> None:
        self.stopped.append(name)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_PAUSE_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_log_is_shown_once_however_often_its_connection_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(["one\ntw", "o\n", "three\n", submitted.last_line(3) + "\n", "never shown\n"])
    ended = asyncio.run(follow(cluster, "job"))
    assert ended.exit_status == 3
    assert not ended.lost
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


@pytest.mark.usefixtures("impatient")
def test_a_break_after_hours_of_log_is_one_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is counted from the last word, not from the start."""
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(following, "_PATIENCE_S", 250.0)
    lines = [f"line {number}\n" for number in range(20)]
    assert asyncio.run(follow(Cluster([*lines, submitted.last_line(0) + "\n"]), "job")).exit_status == 0


def test_a_crash_is_told_before_the_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.doctor.main", lambda arguments: 1 // 0)
    assert submitted.main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert said.index("ZeroDivisionError") < said.index(submitted.last_line(1))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("state", "lost", "status"), [("FAILED", True, 1), ("STOPPED", False, 4)])
def test_a_job_without_a_last_line_ends_as_ray_says(state: str, lost: bool, status: int) -> None:
    ended = asyncio.run(follow(Cluster(["all\n"], state), "job"))
    assert ended == Followed(None, state, "killed", False)
    assert (ended.lost, ended.exit_status) == (lost, status)


@pytest.mark.usefixtures("impatient")
def test_a_cluster_that_is_away_for_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_PATIENCE_S", 0.0)
    with pytest.raises(FramelaneError, match="--follow job"):
        asyncio.run(follow(Cluster([], away=True), "job"))


@pytest.mark.usefixtures("impatient")
def test_a_job_is_stopped_and_followed_to_its_end() -> None:
    cluster = Cluster([submitted.last_line(4) + "\n"])
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ended = asyncio.run(follow(cluster, "job", stop=True))
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler, "who heard it before hears it again"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (ended.exit_status, ended.stopping, cluster.stopped) == (4, True, ["job"])


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        ([], "name a job"),
        (["--follow", "x", "synthesize"], "name a job"),
        (["--follow", "x", "--stop", "y"], "not allowed"),
        (["--env", "A-B=1", "doctor"], "--env"),
        (["dance"], "invalid choice"),
        (["synthesize", "--preset", "tiny-gamecraft"], "required"),
        (["synthesize", "--pre", "tiny-gamecraft", "--manifest", "m", "--out", "o"], "required"),
    ],
)
def test_wrong_usage_is_refused_here(argv: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        submit.main(argv)
    assert caught.value.code == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "settings", "word"),
    [
        (["--address", "http://127.0.0.1:9"], [], "address: no cluster takes jobs there"),
        (["--env", "FRAMELANE_NOT_SET"], [], "env: FRAMELANE_NOT_SET is not set here"),
        ([], ["--set", "limits.graze_seconds=3"], "limits.graze_seconds"),
        ([], ["--fleet", "enormous"], "fleet: unknown fleet"),
    ],
)
def test_what_could_not_work_there_is_refused_here(
    options: list[str], settings: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["synthesize", "--preset", "tiny-gamecraft", "--manifest", "m.jsonl", "--out", "o", *settings]
    assert submit.main([*options, *job]) == 2
    assert word in capsys.readouterr().err

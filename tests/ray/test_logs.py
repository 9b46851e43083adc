"""A run that logs JSON: a bad row and a lane that dies are told with whom they met, by every process, line by line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.ray.runs import INPUTS, row
from tests.ray.started import Started
from tests.servers.cluster import RayCluster, processes_using

pytestmark = pytest.mark.ray

Entry = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """What the driver said, and what actors wrote into Ray's log files."""

    driver: list[Entry]
    actors: list[Entry]
    run_id: str


@pytest.fixture(scope="module")
def told(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("told")
    (folder / "torn.png").write_bytes((INPUTS / "harbour.png").read_bytes()[:400])
    rows = [row("good-1", "w*3"), row("torn", image=str(folder / "torn.png")), row("good-2", "w*3")]
    job = Started(folder, ray_cluster, rows, "laptop", "telemetry.logs=json")
    job.ready()
    running = processes_using(ray_cluster.folder)
    (decoder,) = (pid for pid, title in running.items() if title.startswith("ray::DecodeActor"))
    os.kill(decoder, signal.SIGKILL)
    finished = job.end()
    assert finished.status == 3, "".join(job.said)
    run_id = json.loads((finished.out / "run.json").read_text())["run_id"]
    lines = [line for path in ray_cluster.folder.rglob("worker-*.err") for line in path.read_text().splitlines()]
    theirs = [json.loads(line) for line in lines if line.startswith("{")]
    return Told([json.loads(line) for line in job.said], [each for each in theirs if each.get("run") == run_id], run_id)


def only(entries: Sequence[Entry], which: Callable[[Entry], bool]) -> Entry:
    (found,) = (entry for entry in entries if which(entry))
    return found


def test_every_line_of_the_driver_is_an_entry_and_of_the_run_once_that_has_a_name(told: Told) -> None:
    assert len(told.driver) > 5
    for entry in told.driver:
        assert entry.keys() >= {"time", "level", "logger", "message"}
    named = [entry.get("run") for entry in told.driver]
    assert set(named[named.index(told.run_id) :]) == {told.run_id}


def test_a_bad_row_is_told_with_row_session_stage_and_lane(told: Told) -> None:
    failed = only(told.driver, lambda entry: entry["message"].startswith("the session fails"))
    assert "damaged" in failed["message"]
    assert {name: failed.get(name) for name in ("level", "row", "session", "stage", "lane", "chunk", "tenant")} == {
        "level": "WARNING",
        "row": 2,
        "session": "torn",
        "stage": "encode",
        "lane": "encode-0@tiny-gamecraft",
        "chunk": None,
        "tenant": "default",
    }


def test_a_healed_lane_is_told_with_what_it_was_lost_under(told: Told) -> None:
    lost = only(told.driver, lambda entry: entry["message"].startswith("lane lost"))
    assert (lost["lane"], lost["stage"]) == ("decode-0@tiny-gamecraft", "decode")
    assert isinstance(lost["chunk"], int)
    assert lost["session"] in ("good-1", "good-2")
    given_up = only(told.driver, lambda entry: entry["message"].startswith("is given up"))
    assert (given_up["lane"], given_up["session"]) == (lost["lane"], lost["session"])
    assert only(told.driver, lambda entry: entry["message"] == "decode is tried again")["session"] == lost["session"]
    assert only(told.driver, lambda entry: entry["message"] == "lane is back")["lane"] == lost["lane"]


def test_actors_write_the_same_into_rays_log_files(told: Told) -> None:
    serving = [entry for entry in told.actors if entry["message"].startswith("serves")]
    lanes = [f"{stage}-0@tiny-gamecraft" for stage in ("decode", "decode", "denoise", "encode", "text")] + ["write-0"]
    assert sorted(entry["lane"] for entry in serving) == lanes, "one each, and the decoder's second"
    torn = only(told.actors, lambda entry: entry.get("session") == "torn")
    assert torn["lane"] == "encode-0@tiny-gamecraft"
    assert (torn["stage"], torn["level"]) == ("encode", "WARNING")
    assert "damaged" in torn["message"]

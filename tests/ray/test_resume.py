"""A run that is killed or stopped goes on from its durable chunks, and what comes out is what would have come out."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gamecraft_core.base.points import FOLDER_VARIABLE
from gamecraft_core.dataset import layout
from tests.ray.runs import DEADLINE_S, Finished, Job, essence, row, synthesize
from tests.servers.cluster import RayCluster

ROWS = [row("a", "w d s a w d", seed=3), row("b", "d d w w s s", seed=4), row("c", "w", seed=5)]


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    done = synthesize(tmp_path_factory.mktemp("undisturbed"), ROWS, "laptop")
    assert done.status == 0
    return done


@pytest.mark.parametrize("end", ["killed", "stopped", "stopped at once"])
def test_a_run_goes_on_from_its_durable_chunks(
    ray_cluster: RayCluster, undisturbed: Finished, tmp_path: Path, end: str
) -> None:
    job = Job(ray_cluster, tmp_path, ROWS)

    def under_way() -> bool:
        return job.staged("a") >= 2

    if end == "stopped at once":
        status = job.interrupt_twice(under_way)
    else:
        status = job.when(under_way, signal.SIGKILL if end == "killed" else signal.SIGTERM)
    assert status == (-signal.SIGKILL if end == "killed" else 4), job.log.read_text()
    durable = job.staged("a")
    assert 2 <= durable <= 5
    done = synthesize(tmp_path, ROWS, "laptop")
    assert done.status == 0
    assert essence(done) == essence(undisturbed)
    again = done.slices("denoise")
    assert sorted(chunk for name, chunk in again if name == "a") == list(range(durable, 6))
    assert not list((job.out / layout.STAGING).rglob("*.*"))


@pytest.mark.parametrize("point", ["finish.begun"])
def test_a_driver_killed_when_its_work_was_done_is_started_again(
    ray_cluster: RayCluster, undisturbed: Finished, tmp_path: Path, point: str
) -> None:
    armed = tmp_path / "points"
    armed.mkdir()
    (armed / point).touch()
    job = Job(ray_cluster, tmp_path, ROWS, **{FOLDER_VARIABLE: str(armed)})
    assert job.process.wait(DEADLINE_S) == -signal.SIGKILL, job.log.read_text()
    done = synthesize(tmp_path, ROWS, "laptop")
    assert done.status == 0
    assert essence(done) == essence(undisturbed)

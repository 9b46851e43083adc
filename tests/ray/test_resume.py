"""A run that is killed or stopped goes on from its durable chunks, and what comes out is what would have come out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gamecraft_core.base.points import FOLDER_VARIABLE
from gamecraft_core.dataset import layout
from tests.ray.runs import ROOT, SMALL, Finished, manifest, row, synthesize
from tests.servers.cluster import ENV, RayCluster

ROWS = [row("a", "w d s a w d", seed=3), row("b", "d d w w s s", seed=4), row("c", "w", seed=5)]
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    done = synthesize(tmp_path_factory.mktemp("undisturbed"), ROWS, "laptop")
    assert done.status == 0
    return done


class Job:
    """The command line as a child process, on the tests' cluster."""

    def __init__(self, cluster: RayCluster, folder: Path, **environment: str) -> None:
        self.out = folder / "out"
        command = [sys.executable, "-m", "jobs.synthesize", "--preset", "tiny-gamecraft", "--fleet", "laptop"]
        command += ["--manifest", str(manifest(folder, ROWS)), "--out", str(self.out), "--metrics-port", "0"]
        command += [part for setting in SMALL for part in ("--set", setting)]
        self.log = folder / "log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--address", cluster.address],
                cwd=ROOT,
                env={**os.environ, **ENV, **environment},
                stdout=log,
                stderr=log,
            )

    def when(self, seen: Callable[[], bool], number: signal.Signals) -> int:
        """Send ``number`` as soon as ``seen`` says so; the job's exit status."""
        self._send_when(seen, number)
        return self.process.wait(DEADLINE_S)

    def _send_when(self, seen: Callable[[], bool], number: signal.Signals) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not seen():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.005)
        self.process.send_signal(number)

    def interrupt_twice(self, seen: Callable[[], bool]) -> int:
        """Ask the job to stop, and then to stop at once."""
        self._send_when(seen, signal.SIGTERM)
        return self.when(lambda: "a second one ends at once" in self.log.read_text(), signal.SIGTERM)

    def staged(self, session_id: str) -> int:
        return len(list((self.out / layout.STAGING / session_id).glob("*.safetensors")))


def essence(done: Finished) -> dict[str, Any]:
    """What must not depend on when anything broke: every bit of latents and videos."""
    return {
        name: (found["video_sha256"], [chunk["latents_sha256"] for chunk in found["chunks"]])
        for name, found in done.rows().items()
    }


@pytest.mark.parametrize("end", ["killed", "stopped", "stopped at once"])
def test_a_run_goes_on_from_its_durable_chunks(
    ray_cluster: RayCluster, undisturbed: Finished, tmp_path: Path, end: str
) -> None:
    job = Job(ray_cluster, tmp_path)

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
    job = Job(ray_cluster, tmp_path, **{FOLDER_VARIABLE: str(armed)})
    assert job.process.wait(DEADLINE_S) == -signal.SIGKILL, job.log.read_text()
    done = synthesize(tmp_path, ROWS, "laptop")
    assert done.status == 0
    assert essence(done) == essence(undisturbed)

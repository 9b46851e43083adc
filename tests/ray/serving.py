"""The service's command line as a child process of a test, on the tests' cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx

from tests.ray.runs import ROOT, SMALL
from tests.servers.cluster import ENV, RayCluster

DEADLINE_S = 240.0


class Serving:
    """The tiny models' service; its output is in ``folder``, at a port that a restart takes again."""

    def __init__(
        self,
        cluster: RayCluster,
        folder: Path,
        port: int,
        *options: str,
        preset: str = "tiny-gamecraft",
        settings: Sequence[str] = SMALL,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        command = [sys.executable, "-m", "jobs.serve", "--preset", preset, "--out", str(folder / "out")]
        command += ["--port", str(port), *options]
        command += [part for setting in settings for part in ("--set", setting)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--address", cluster.address], cwd=ROOT, env={**os.environ, **ENV}, stdout=log, stderr=log
            )

    def __enter__(self) -> Serving:
        deadline = time.monotonic() + DEADLINE_S
        while not self._ready():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False

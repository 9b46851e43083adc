"""The service on a real cluster: played over a WebSocket, killed in the middle of it, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest

from gamecraft_core.dataset import layout
from gamecraft_core.media.fragment import probe
from orchestrator.http.client import Client
from tests.ray.runs import INPUTS, ROOT, SMALL
from tests.servers.child import free_port
from tests.servers.cluster import ENV, RayCluster

pytestmark = pytest.mark.ray

DEADLINE_S = 240.0


class Serving:
    """The command line as a child process, on the tests' cluster, at a port that a restart takes again."""

    def __init__(self, cluster: RayCluster, folder: Path, port: int, *options: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        command = [sys.executable, "-m", "jobs.serve", "--out", str(folder / "out"), "--port", str(port), *options]
        command += [part for setting in SMALL for part in ("--set", setting)]
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


def denoised(url: str) -> int:
    """Chunks that the service has denoised, by its own metrics."""
    prefix = 'gamecraft_chunk_stage_seconds_count{stage="denoise"} '
    (line,) = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith(prefix)]
    return int(float(line.removeprefix(prefix)))


def test_a_session_is_played_and_survives_the_death_of_its_service(ray_cluster: RayCluster, tmp_path: Path) -> None:
    port = free_port()
    got, kinds, steps = b"", list[str](), list[dict[str, Any]]()
    with Serving(ray_cluster, tmp_path, port) as serving, Client(serving.url, patience=DEADLINE_S) as client:
        name = client.create("A harbour.", image=INPUTS / "harbour.png", actions="w d", seed=7)["id"]
        pieces = client.watch(name)
        for piece in pieces:
            got += piece.data
            kinds.append(str(piece.event.get("type")))
            steps += [piece.event] if kinds[-1] == "denoising" else []
            if piece.chunk == 1:
                break
        assert [client.control(name, action, at)["first"] for at, action in ((2, "a"), (3, "left_rot:1.5"))] == [2, 3]
        assert serving.end(signal.SIGKILL) == -signal.SIGKILL
        durable = len(list((tmp_path / "out" / layout.staging_folder(name)).iterdir()))
        with Serving(ray_cluster, tmp_path, port) as again:
            for piece in pieces:
                got += piece.data
                kinds.append(str(piece.event.get("type")))
                if piece.chunk == 3:
                    client.finish(name)
            video = client.video(name)
            record = client.records(name)
            made = denoised(again.url)
            assert again.end(signal.SIGTERM) == 0, again.log.read_text()
    assert got == video, "what was streamed across the two is what was stored"
    facts = probe(video)
    assert (facts.frames, facts.fps, facts.monotonic, facts.width, facts.height) == (132, Fraction(25), True, 48, 32)
    controls = [chunk["control"]["action"] for chunk in record["chunks"]]
    assert controls == ["w", "d", "a", "left_rot"]
    assert {"denoised", "decoded", "stored", "committed"} <= set(kinds)
    assert made == 4 - durable, "what was durable is not made again"
    assert kinds.count("state") == 2
    assert all(0 <= step["step"] <= step["steps"] == 3 for step in steps)

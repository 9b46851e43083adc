"""The metrics as Prometheus sees them: promtool's verdict, and a scrape by the real server while a job runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from gamecraft_core.base.messages import STAGES
from jobs.metrics_server import serve_metrics
from orchestrator.metrics import METRICS, Metrics
from tests.ray.runs import ROOT, SMALL, manifest, row
from tests.servers.child import free_port
from tests.servers.cluster import ENV, RayCluster

pytestmark = pytest.mark.service

DEADLINE_S = 120.0

#: What a run without failures leaves at zero.
QUIET = {
    "gamecraft_failures_total",
    "gamecraft_lane_restarts_total",
    "gamecraft_lanes_missing",
    "gamecraft_queue_depth",
    "gamecraft_store_retries_total",
}


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (see tests/system_packages.sh)")
    return path


def until(condition: Callable[[], Any], what: str, alive: subprocess.Popen[Any] | None = None) -> Any:
    """The first true value of ``condition``, asked again and again until a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        assert alive is None or alive.poll() is None, f"a process ended before: {what}"
        time.sleep(0.05)
    raise AssertionError(f"did not come about in {DEADLINE_S:.0f} s: {what}")


class Prometheus:
    """A running server's HTTP interface."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **query: str) -> Any:
        """The answer's ``data``; None while the server does not answer."""
        with suppress(OSError), urllib.request.urlopen(f"{self._url}{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]
        return None

    def ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self._url}/-/ready") as answer:
            return bool(answer.status == 200)
        return False

    def values(self, query: str) -> list[float]:
        return [float(each["value"][1]) for each in self.get("/api/v1/query", query=query)["result"]]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """A real Prometheus with its data in ``folder`` that scrapes ``target`` (host:port) five times a second."""
    config = folder / "prometheus.yml"
    scrape = {"job_name": "framelane", "static_configs": [{"targets": [target]}]}
    config.write_text(json.dumps({"global": {"scrape_interval": "200ms"}, "scrape_configs": [scrape]}))
    port = free_port()
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = Prometheus(f"http://127.0.0.1:{port}")
        try:
            until(server.ready, "Prometheus is ready", process)
            yield server
        finally:
            process.terminate()
            process.wait(60)


def test_promtool_finds_nothing_to_object_to() -> None:
    metrics = Metrics(dict.fromkeys(STAGES, 1), lambda stage: 0, 0.0)
    command = [program("promtool"), "check", "metrics"]
    done = subprocess.run(
        command, input=generate_latest(metrics.registry), capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_taken_port_is_exchanged_for_a_free_one() -> None:
    metrics = Metrics(dict.fromkeys(STAGES, 1), lambda stage: 0, 0.0)
    with serve_metrics(metrics.registry, 0) as first:
        port = urllib.parse.urlsplit(first).port
        assert port
        with serve_metrics(metrics.registry, port) as second:
            assert second != first
            for url in (first, second):
                with urllib.request.urlopen(url) as answer:
                    assert b"gamecraft_overlap_ratio" in answer.read()


def endpoint(log: Iterable[str]) -> str:
    """The URL that a job logs when its fleet is ready."""
    said = []
    for line in log:
        if found := re.search(r"metrics at (\S+)", line):
            return found[1]
        said.append(line)
    raise AssertionError("the job ended without metrics:\n" + "".join(said))


@pytest.mark.ray
def test_a_real_prometheus_scrapes_a_job_while_it_runs(ray_cluster: RayCluster, tmp_path: Path) -> None:
    program("prometheus")
    # the first commits soon, the others go on long enough for that to be scraped
    rows = [row("session-0", "w d"), row("bad", "jump")]
    rows += [row(f"session-{number}", "w d s*60", seed=number) for number in range(1, 4)]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jobs.synthesize", "--preset", "tiny-gamecraft", "--fleet", "laptop"]
    command += ["--manifest", str(manifest(tmp_path, rows)), "--out", str(out), "--metrics-port", "0"]
    command += ["--address", ray_cluster.address]
    for setting in SMALL:
        command += ["--set", setting]
    environment = {**os.environ, **ENV, "PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert job.stderr is not None
        url = endpoint(job.stderr)
        until(lambda: json.loads((out / "run.json").read_text()).get("metrics_url") == url, "run.json names it", job)
        with prometheus(tmp_path, urllib.parse.urlsplit(url).netloc) as server:
            seen = "gamecraft_outputs_committed_total > 0 and on() gamecraft_sessions{state='active'} > 1"
            until(lambda: server.values(seen), "a commit is seen while others go on", job)
            assert job.poll() is None, "the job is still running"
            for _ in job.stderr:  # read to its end, so that the job never blocks on a full pipe
                pass
            assert job.wait() == 3
            check_series(server)
    finally:
        job.kill()
        job.wait()
        assert job.stderr is not None
        job.stderr.close()


def check_series(server: Prometheus) -> None:
    """What was scraped: every documented metric has values, and the numbers fit together."""
    for spec in METRICS:
        name = spec.name + ("_count" if spec.kind == "histogram" else "")
        values = server.values(f"max_over_time({name}[10m])")
        labels = [len(each) for each in spec.labels.values()] or [1]
        assert len(values) == labels[0], name
        if spec.name not in QUIET:
            assert max(values) > 0, name
    assert server.values('max_over_time(gamecraft_failures_total{reason="BadInput"}[10m])') == [1]
    assert 0 < max(server.values("max_over_time(gamecraft_overlap_ratio[10m])")) <= 1
    assert max(server.values("max_over_time(gamecraft_sessions{state='active'}[10m])")) > 1
    for stage in STAGES:
        query = f"max_over_time(gamecraft_lane_memory_bytes{{stage='{stage}'}}[10m])"
        assert min(server.values(query)) > 10 << 20, "a process with its libraries holds more than 10 MiB"
    text = json.dumps(server.get("/api/v1/series", **{"match[]": '{job="framelane"}'}))
    assert "session-" not in text
    assert "gamecraft_chunk_stage_seconds_bucket" in text

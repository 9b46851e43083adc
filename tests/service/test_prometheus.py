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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest

from gamecraft_core.base.messages import STAGES
from jobs.dashboard_picture import substituted
from jobs.dashboard_rows import ROWS
from jobs.metrics_server import serve_metrics
from orchestrator.census import Census
from orchestrator.http.client import Client
from orchestrator.limits import Limits
from orchestrator.metrics import METRICS, Metrics
from orchestrator.scheduler import Scheduler
from tests.infra.promql import rules
from tests.ray.runs import INPUTS, ROOT, SMALL, manifest, row
from tests.ray.serving import Serving
from tests.servers.child import free_port
from tests.servers.cluster import ENV, RayCluster
from tests.servers.prometheus import Prometheus, prometheus

pytestmark = pytest.mark.service

DEADLINE_S = 120.0

#: What a run without failures, and without a cluster that shrinks, leaves at zero.
QUIET = {
    "gamecraft_drain_started_timestamp_seconds",
    "gamecraft_failures_total",
    "gamecraft_gpu_seconds_total",
    "gamecraft_lane_restarts_total",
    "gamecraft_lanes_draining",
    "gamecraft_lanes_missing",
    "gamecraft_node_notices_total",
    "gamecraft_orders_parked",
    "gamecraft_queue_depth",
    "gamecraft_stall_seconds_total",
    "gamecraft_stalls_total",
    "gamecraft_store_retries_total",
}
#: What a job leaves at zero, and somebody who plays does not.
LIVE = {
    "gamecraft_action_to_frame_seconds",
    "gamecraft_live_sessions",
    "gamecraft_live_video_seconds_total",
    "gamecraft_refusals_total",
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


def test_promtool_finds_nothing_to_object_to() -> None:
    metrics = Metrics([], Scheduler(Limits(), Census()), 0.0)
    command = [program("promtool"), "check", "metrics"]
    done = subprocess.run(
        command, input=generate_latest(metrics.registry), capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_taken_port_is_exchanged_for_a_free_one() -> None:
    metrics = Metrics([], Scheduler(Limits(), Census()), 0.0)
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


@contextmanager
def job(cluster: RayCluster, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A job of which one session commits soon, one row is wrong and others go on for a while; and its endpoint."""
    rows = [row("session-0", "w d"), row("bad", "jump")]
    rows += [row(f"session-{number}", "w d s*30", seed=number) for number in range(1, 4)]
    command = [sys.executable, "-m", "jobs.synthesize", "--preset", "tiny-gamecraft", "--fleet", "laptop"]
    command += ["--manifest", str(manifest(folder, rows)), "--out", str(folder / "out"), "--metrics-port", "0"]
    command += ["--address", cluster.address]
    for setting in SMALL:
        command += ["--set", setting]
    environment = {**os.environ, **ENV, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield process, endpoint(process.stderr)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.ray
def test_a_real_prometheus_scrapes_a_job_and_a_service_and_the_dashboard_shows_them(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    """Our configuration and rules, found targets, and in the end every query of every panel."""
    began = time.time()
    (tmp_path / "prometheus").mkdir()
    with prometheus(tmp_path / "prometheus", program("prometheus")) as server:
        with job(ray_cluster, tmp_path) as (running, url):
            server.scrape("framelane-job", "films", urllib.parse.urlsplit(url).netloc)
            run_json = tmp_path / "out" / "run.json"
            until(lambda: json.loads(run_json.read_text()).get("metrics_url") == url, "run.json names it", running)
            seen = "gamecraft_outputs_committed_total > 0 and on() gamecraft_sessions{state='active'} > 1"
            until(lambda: server.values(seen), "a commit is seen while others go on", running)
            until(lambda: server.values("framelane:job_eta_seconds > 0"), "it is known when it will be done", running)
            assert running.poll() is None, "the job is still running"
            assert running.stderr is not None
            for _ in running.stderr:  # read to its end, so that the job never blocks on a full pipe
                pass
            assert running.wait() == 3
        check_job(server)
        (tmp_path / "serve").mkdir()
        port = free_port()
        server.scrape("framelane-service", "town", f"127.0.0.1:{port}")
        with Serving(ray_cluster, tmp_path / "serve", port) as serving:
            play(serving.url)
            shown = "framelane:live_realtime_factor:rate5m > 0 and on() gamecraft_action_to_frame_seconds_count == 4"
            until(lambda: server.values(shown), "somebody is seen playing", serving.process)
            refused = "sum(gamecraft_refusals_total{run='town'}) > 0"
            until(lambda: server.values(refused), "and being refused", serving.process)
            check_service(server)
            check_dashboard(server, time.time() - began)


def play(url: str) -> None:
    """Four chunks of a session that then waits for controls; what is asked too far ahead is refused."""
    with Client(url, patience=DEADLINE_S) as client:
        name = client.create("A harbour.", image=INPUTS / "harbour.png", actions="w d", seed=7)["id"]
        for piece in client.watch(name):
            if piece.chunk == 1:
                client.control(name, "a s", 2)
            if piece.chunk == 3:
                break
    assert httpx.post(f"{url}/v1/sessions/{name}/controls", json={"actions": "w*100"}).status_code == 429


def check_job(server: Prometheus) -> None:
    """Every documented metric has a value in every series, and the numbers fit together."""
    for spec in METRICS:
        name = spec.name + ("_count" if spec.kind == "histogram" else "")
        values = server.values(f"max_over_time({name}{{run='films'}}[10m])")
        labels = [len(each) for each in spec.labels.values()] or [1]
        assert len(values) == labels[0], name
        if spec.name not in QUIET | LIVE:
            assert max(values) > 0, name
    assert server.values('max_over_time(gamecraft_failures_total{reason="BadInput"}[10m])') == [1]
    assert 0 < max(server.values("max_over_time(gamecraft_overlap_ratio[10m])")) <= 1
    assert max(server.values("max_over_time(gamecraft_sessions{state='active'}[10m])")) > 1
    assert server.values("max_over_time(gamecraft_job_rows[10m])") == [5]
    assert server.values("max_over_time(gamecraft_job_chunks[10m])") == [2 + 3 * 32]
    for stage in STAGES:
        query = f"max_over_time(gamecraft_lane_memory_bytes{{stage='{stage}'}}[10m])"
        assert min(server.values(query)) > 10 << 20, "a process with its libraries holds more than 10 MiB"
        least = server.values(f"min_over_time(framelane:lane_memory:ratio{{stage='{stage}'}}[10m])")
        assert 0 < max(least) < 1
    text = json.dumps(server.get("/api/v1/series", **{"match[]": '{job="framelane-job"}'}))
    assert "session-" not in text
    assert "gamecraft_chunk_stage_seconds_bucket" in text


def check_service(server: Prometheus) -> None:
    """What only a service with somebody in it can show."""
    for spec in METRICS:
        name = spec.name + ("_count" if spec.kind == "histogram" else "")
        if spec.name in LIVE:
            assert max(server.values(f"max_over_time({name}{{run='town'}}[10m])")) > 0, name
    of = "{run='town'}"
    assert server.values(f"gamecraft_action_to_frame_seconds_count{of}") == [4]
    assert server.values(f"gamecraft_live_video_seconds_total{of}") == [pytest.approx(4 * 33 / 25)]
    assert server.values(f"gamecraft_job_rows{of}") == [0]


def check_dashboard(server: Prometheus, seconds: float) -> None:
    """Each panel draws something; optional ones need exporters that are not here."""
    for each in ROWS:
        for panel in each.panels:
            for query in panel.queries:
                drawn = server.series(substituted(query.expression, "20s"), seconds)
                assert panel.optional or drawn, f"{each.title}, {panel.title}: {query.expression}"
    for rule in rules():
        if "record" in rule:
            assert server.series(rule["record"], seconds), rule["record"]
    (told,) = [server.get("/api/v1/rules")]
    health = {rule["name"]: rule["health"] for group in told["groups"] for rule in group["rules"]}
    assert set(health.values()) == {"ok"}, health

"""The service on Ray Serve: played through its proxy, its only replica killed, updated, and taken down in order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from starlette.datastructures import Headers

from actors import adopt
from actors.blueprints import ROLES
from gamecraft_core.dataset import layout
from gamecraft_core.media.fragment import probe
from jobs.gateway import build
from orchestrator.http.client import Client
from tests.ray.runs import INPUTS, SMALL
from tests.ray.serving import DEADLINE_S, Serving
from tests.servers.child import free_port
from tests.servers.cluster import RayCluster, processes_using

pytestmark = pytest.mark.ray


def actors(cluster: RayCluster, *kinds: str) -> set[int]:
    """Processes of actors whose class is one of ``kinds``."""
    lines = processes_using(cluster.folder).items()
    return {pid for pid, line in lines if line.startswith(tuple(f"ray::{kind}" for kind in kinds))}


def replicas(cluster: RayCluster) -> set[int]:
    return actors(cluster, "ServeReplica")


def lanes(cluster: RayCluster) -> set[int]:
    return actors(cluster, *(role.__name__ for role in ROLES.values()))


def at_work(cluster: RayCluster) -> dict[int, str]:
    """Processes of actors and tasks; what Ray keeps ready for the next ones does not count."""
    found = processes_using(cluster.folder).items()
    return {pid: line for pid, line in found if line.startswith("ray::") and not line.startswith("ray::IDLE")}


@contextmanager
def nothing_left(cluster: RayCluster) -> Iterator[None]:
    """When the block has ended, what began within it ends by itself."""
    before = at_work(cluster).keys()
    yield
    deadline = time.monotonic() + DEADLINE_S
    while left := {pid: line for pid, line in at_work(cluster).items() if pid not in before}:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def refused(url: str, place: int) -> None:
    """Somebody more is refused before anything of the request is read."""
    picture = {"image": (INPUTS / "harbour.png").read_bytes() + b"another"}
    for body in ({"data": {"prompt": "x"}, "files": picture}, {"content": b"{"}):
        answer = httpx.post(f"{url}/v1/sessions", **body, timeout=DEADLINE_S)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5"), answer.text
        assert answer.json()["error"]["position"] == place


def test_a_session_is_played_through_serve_and_survives_its_replica(ray_cluster: RayCluster, tmp_path: Path) -> None:
    full = ("--on", "serve", "--set", "limits.max_sessions=1", "--set", "limits.max_queued=1")
    with nothing_left(ray_cluster), Serving(ray_cluster, tmp_path, free_port(), *full) as serving:
        with Client(serving.url, patience=DEADLINE_S) as client:
            name = client.create("A harbour.", image=INPUTS / "harbour.png", actions="w d", seed=7)["id"]
            waiting = client.create("Another.", image=INPUTS / "harbour.png", actions="w")
            assert (waiting["status"], waiting["position"]) == ("queued", 1)
            refused(serving.url, place=2)
            out = tmp_path / "out"
            assert {path.parent.name for path in (out / layout.SESSIONS).rglob("request.json")} == {name, waiting["id"]}
            assert len(list((out / layout.INPUTS).iterdir())) == 1, "the engine hears of nobody who was refused"
            got, kinds = b"", list[str]()
            for piece in client.watch(name):
                got += piece.data
                kinds.append(str(piece.event.get("type")))
                if piece.chunk == 1:
                    (only,) = replicas(ray_cluster)
                    assert client.control(name, "a", 2)["first"] == 2
                    os.kill(only, signal.SIGKILL)
                if piece.chunk == 2:
                    client.finish(name)
            video = client.video(name)
            facts = probe(video)
            assert got == video, "what was streamed across the two is what was stored"
            assert (facts.frames, facts.fps, facts.monotonic) == (99, Fraction(25), True)
            assert {"denoised", "decoded", "stored", "committed"} <= set(kinds)
            client.finish(waiting["id"])
            *_, last = client.watch(waiting["id"])
            assert last.event["type"] == "committed", "who waits waits across it, too"
        assert serving.end(signal.SIGTERM) == 0, serving.log.read_text()


@contextmanager
def serve_instance(port: int) -> Iterator[Any]:
    """Ray Serve as an operator's, who applies configurations to it. No fleet stands when it is gone."""
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        yield _get_global_client()
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        for fleet in adopt.standing():
            asyncio.run(adopt.dismiss(fleet))


def applied(out: Path, *settings: str) -> ServeDeploySchema:
    """What stands in a RayService's ``serveConfigV2``."""
    arguments = {
        "preset": "tiny-gamecraft",
        "out": str(out),
        "host": "127.0.0.1",
        "settings": [*SMALL, "fleet.detached=true", *settings],
    }
    application = {"name": "play", "route_prefix": "/", "import_path": "jobs.gateway:build", "args": arguments}
    return ServeDeploySchema.model_validate({"applications": [application]})


def test_an_update_hands_sessions_and_lanes_over(ray_cluster: RayCluster, tmp_path: Path) -> None:
    port = free_port()
    with nothing_left(ray_cluster), serve_instance(port) as instance:
        instance.deploy_apps(applied(tmp_path), _blocking=True)
        with Client(f"http://127.0.0.1:{port}", patience=DEADLINE_S) as client:
            await_ready(port)
            before, fleet = replicas(ray_cluster), lanes(ray_cluster)
            name = client.create("A harbour.", image=INPUTS / "harbour.png", actions="w", seed=7)["id"]
            kinds, got = list[str](), b""
            for piece in client.watch(name):
                got += piece.data
                kinds.append(str(piece.event.get("type")))
                if piece.chunk == 0:
                    instance.deploy_apps(applied(tmp_path, "limits.max_sessions=3"))
                if kinds.count("state") == 2 and kinds[-1] == "state":
                    client.control(name, "d", 1)
                if piece.chunk == 1:
                    client.finish(name)
            assert "draining" in kinds, "the old replica says that it goes, though a stream is open"
            assert got == client.video(name)
            assert replicas(ray_cluster).isdisjoint(before)
            assert lanes(ray_cluster) == fleet, "a standing fleet loads nothing again"
            assert len(fleet) == 5
        instance.delete_apps(["play"])


def await_ready(port: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=DEADLINE_S).is_success:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_serve_application_is_one_replica_that_holds_every_stream(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("ann a-secret-token\n")
    application = build({"preset": "tiny-gamecraft", "out": str(tmp_path / "out"), "tokens": str(tokens)})
    assert not (tmp_path / "out").exists(), "what is slow waits for the replica"
    deployment = application._bound_deployment
    assert (deployment.name, deployment.num_replicas) == ("gateway", 1)
    assert deployment.max_ongoing_requests > 1000
    rules = deployment.init_args[2]
    assert rules.tenant(Headers({"authorization": "Bearer a-secret-token"})) == "ann"
    assert rules.max_socket_bytes is not None, "nobody is buffered for without bound"

"""A detached fleet outlives the program that started it, and the next one takes it over as it is."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from actors import adopt, cluster
from actors.fleet_spec import FleetSpec, GroupSpec, LaneSpec, WriteSpec
from gamecraft_core.base.errors import LaneLost, UsageError
from tests.fakes.roles import DENOISING, script
from tests.ray.fleets import LONG, STALL_S, World, actors, await_end, denoise_order, denoise_payloads, pids
from tests.servers.cluster import ENV, RayCluster

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
QUICK = LaneSpec(stall_seconds=STALL_S)


def detached(name: str) -> FleetSpec:
    group = GroupSpec(sp_degree=2, stall_seconds=STALL_S)
    writers = WriteSpec(stall_seconds=STALL_S)
    return FleetSpec(name=name, text=QUICK, encode=QUICK, denoise=(group,), decode=QUICK, write=writers, detached=True)


def control_plane(at: RayCluster, spec: FleetSpec, steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.servers.control_plane", at.address, at.namespace]
    return subprocess.Popen(
        [*command, spec.model_dump_json(), str(steps)],
        cwd=ROOT,
        env={**os.environ, **ENV},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def left_behind(at: RayCluster, spec: FleetSpec, steps: int = 0) -> Iterator[dict[str, Any]]:
    """What a control plane said that was killed; at the end its fleet is ended."""
    with control_plane(at, spec, steps) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.kill()
        assert said, process.stderr and process.stderr.read()
    told = json.loads(said)
    yield told


def named(name: str) -> int:
    """The process of a named actor."""
    actor: Any = ray.get_actor(name)
    answer: Any = ray.get(actor.ping.remote())
    return int(answer["pid"])


@pytest.fixture
def dismissed() -> Iterator[None]:
    """No detached fleet stays in the tests' cluster."""
    yield
    for fleet in adopt.standing():
        asyncio.run(adopt.dismiss(fleet))
    assert not adopt.standing()


def test_a_warm_fleet_is_adopted_used_and_rebuilt_like_ones_own(
    ray_cluster: RayCluster, dismissed: None, caplog: pytest.LogCaptureFixture
) -> None:
    spec = detached("outliving")
    with left_behind(ray_cluster, spec) as told, caplog.at_level(logging.INFO), World(spec, DENOISING) as world:
        lane = world.lane("denoise")
        assert world.fleet.identity == told["identity"]
        assert caplog.text.count("adopted ") == 5, "every lane"
        assert pids(lane) == told["pids"]
        assert ray.get([rank.loaded.remote() for rank in actors(lane)]) == [1, 1], "weights were loaded once"
        assert world.fleet.facts["tiny-gamecraft"]["weights_fingerprint"]
        receipt, _ = world.wait(lane.run(denoise_order(), denoise_payloads()))
        assert receipt.facts["latents_sha256"] == told["sha256"]

        other = control_plane(ray_cluster, spec, 0)
        assert "is in use by Ray job" in other.communicate()[1]

        with pytest.raises(LaneLost):
            world.interrupted(lane, denoise_order(LONG), denoise_payloads(), told["pids"][0], signal.SIGKILL)
        new = world.wait(world.fleet.rebuild(lane))
        world.wait(new.run(denoise_order(), denoise_payloads()))
        rebuilt = pids(new)
    # Closed, it stands; and who has it may have it again.
    with World(spec, DENOISING) as again:
        assert pids(again.lane("denoise")) == rebuilt
        again.wait(again.fleet.dismiss())
    await_end(rebuilt)  # dead they are; their parent may not have buried them yet
    assert told["identity"] not in adopt.standing()


def test_what_is_not_well_is_rebuilt_and_what_still_works_is_kept(ray_cluster: RayCluster, dismissed: None) -> None:
    """The dead control plane's chunk is still at work; meanwhile one lane has died and one has stopped."""
    spec = detached("ailing")
    with left_behind(ray_cluster, spec, steps=100) as told:
        dead, stopped = (named(f"{told['identity']}/{lane}/0") for lane in ("decode-0@tiny-gamecraft", "write-0"))
        os.kill(dead, signal.SIGKILL)
        os.kill(stopped, signal.SIGSTOP)
        with World(spec, DENOISING) as world:
            await_end([stopped])
            assert pids(world.lane("decode")) != [dead]
            for lane in (world.lane("decode"), world.lane("write")):
                world.wait(lane.run(script("work"), ()))
            lane = world.lane("denoise")
            receipt, _ = world.wait(lane.run(denoise_order(), denoise_payloads()))
            assert receipt.facts["latents_sha256"] == told["sha256"]
            assert pids(lane) == told["pids"]


def test_a_group_that_lost_a_rank_meanwhile_is_rebuilt_as_one(ray_cluster: RayCluster, dismissed: None) -> None:
    spec = detached("halved")
    with left_behind(ray_cluster, spec) as told:
        os.kill(told["pids"][1], signal.SIGKILL)
        with World(spec, DENOISING) as world:
            lane = world.lane("denoise")
            await_end(told["pids"])
            receipt, _ = world.wait(lane.run(denoise_order(), denoise_payloads()))
            assert receipt.facts["latents_sha256"] == told["sha256"]


def test_a_lane_that_joined_is_taken_over_and_stands_for_the_one_that_left(
    ray_cluster: RayCluster, dismissed: None
) -> None:
    group = GroupSpec(sp_degree=2, max_groups=2, stall_seconds=STALL_S)
    spec = detached("moved").model_copy(update={"denoise": (group,)})
    with World(spec) as world:
        first = world.lane("denoise")
        second = world.wait(world.fleet.another("denoise@tiny-gamecraft of 2 ranks"))
        there, gone = pids(second), pids(first)
        assert world.wait(world.fleet.leaving()) == set()
        assert world.fleet.first_to_go([first, second]) == second
        world.wait(world.fleet.give_back(first))
        await_end(gone)
    with World(spec) as again:
        assert [lane.name for lane in again.fleet.lanes if lane.stage == "denoise"] == [second.name]
        assert pids(again.lane("denoise")) == there
        again.wait(again.fleet.dismiss())


def test_a_detached_fleet_needs_a_cluster_that_stays(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(UsageError, match="a local cluster ends with the run"),
        cluster.connected(detached("f"), 1, None),
    ):
        pass

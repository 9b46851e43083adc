"""Lanes are lost in every way there is, told apart by cause, and rebuilt; nothing is left of what they were."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from actors.fleet_spec import FleetSpec, GroupSpec, LaneSpec, WriteSpec
from actors.lanes import verdict
from gamecraft_core.base.errors import LaneHung, LaneLost, NoRoom, OutOfMemory, WeightsError
from tests.fakes.roles import DENOISING, script
from tests.ray.fleets import LONG, STALL_S, World, actors, alive, await_end, denoise_order, denoise_payloads, pids
from tests.servers.cluster import ENV, RayCluster

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
QUICK = LaneSpec(stall_seconds=STALL_S)
SPEC = FleetSpec(
    name="healing",
    text=QUICK,
    encode=QUICK,
    denoise=(GroupSpec(sp_degree=2, stall_seconds=STALL_S),),
    decode=QUICK,
    write=WriteSpec(stall_seconds=STALL_S),
)


#: Rank 1 says nothing, and what rank 0 did last before it waited for it.
SILENT = r"rank 1 has not answered .*rank 0 .*step \d+ of|rank 0 .*step \d+ of .*rank 1 has not answered"


@pytest.fixture(scope="module")
def world(ray_cluster: RayCluster) -> Iterator[World]:
    """A group of two real ranks among light actors."""
    with World(SPEC, DENOISING) as world:
        yield world


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [(signal.SIGKILL, LaneLost, "rank 1 died"), (signal.SIGSTOP, LaneHung, SILENT)],
    ids=["killed", "stopped"],
)
def test_a_group_that_loses_a_rank_in_an_order_is_rebuilt_as_one(
    world: World, number: signal.Signals, error: type[Exception], message: str
) -> None:
    """Killed or stopped: the whole group is replaced, its processes are gone, and it computes the same bits."""
    lane, payloads = world.lane("denoise"), denoise_payloads()
    before, _ = world.wait(lane.run(denoise_order(), payloads))
    old = pids(lane)
    with pytest.raises(error, match=message):
        world.interrupted(lane, denoise_order(LONG), payloads, old[1], number)
    new = world.wait(world.fleet.rebuild(lane))
    assert not any(alive(pid) for pid in old)
    assert (new.name, new.sp_degree, new.stage) == (lane.name, 2, "denoise")
    assert new in world.fleet.lanes
    after, _ = world.wait(new.run(denoise_order(), payloads))
    assert after.facts["latents_sha256"] == before.facts["latents_sha256"]
    assert not set(pids(new)) & set(old)


def test_a_group_that_runs_out_of_memory_is_given_up_not_the_session(world: World) -> None:
    lane = world.lane("denoise")
    old = pids(lane)
    beyond = replace(denoise_order(), height=8 << 20, width=8 << 20)
    with pytest.raises(OutOfMemory, match="Unable to allocate"):
        world.wait(lane.run(beyond, denoise_payloads()))
    new = world.wait(world.fleet.rebuild(lane))
    assert not any(alive(pid) for pid in old)
    world.wait(new.run(denoise_order(), denoise_payloads()))


def test_a_decoder_that_dies_is_replaced(world: World) -> None:
    lane = world.lane("decode")
    (pid,) = pids(lane)
    with pytest.raises(LaneLost, match="died"):
        world.interrupted(lane, script("work 60"), (), pid, signal.SIGKILL)
    new = world.wait(world.fleet.rebuild(lane))
    world.wait(new.run(script("work"), ()))
    assert not alive(pid)


def test_what_gets_on_is_never_hung_however_long_it_takes(world: World) -> None:
    """Nor is an order that waits behind it."""
    lane = world.lane("encode")

    async def both() -> None:
        await asyncio.gather(lane.run(script(f"work {1.5 * STALL_S}"), ()), lane.run(script("work"), ()))

    world.wait(both())


def test_what_answers_but_does_nothing_is_hung(world: World) -> None:
    lane = world.lane("text")
    (pid,) = pids(lane)
    with pytest.raises(LaneHung, match=r"has not moved \(last seen: began text s\)"):
        world.wait(lane.run(script(f"still {100 * STALL_S}"), ()))
    world.wait(world.fleet.rebuild(lane))
    assert not alive(pid)


def test_an_actor_that_runs_out_of_memory_is_given_up_not_the_session(world: World) -> None:
    lane = world.lane("write")
    (pid,) = pids(lane)
    with pytest.raises(OutOfMemory, match="too many frames"):
        world.wait(lane.run(script("memory"), ()))
    new = world.wait(world.fleet.rebuild(lane))
    assert not alive(pid)
    world.wait(new.run(script("work"), ()))


def test_an_actor_that_its_node_ended_for_memory_ran_out_of_it() -> None:
    assert isinstance(verdict(OutOfMemoryError("node is full"), "decode-0"), OutOfMemory)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        ("error", LaneLost, "could not start: RuntimeError: no such device"),
        ("weights", WeightsError, "weights.dit: truncated"),
        ("stop", LaneHung, "starting, has not answered"),
    ],
)
def test_a_fleet_that_cannot_start_leaves_nothing(
    ray_cluster: RayCluster, tmp_path: Path, start: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        World(SPEC, options={"start": start, "folder": str(tmp_path)})
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert started
    await_end(started)


def test_a_rebuild_without_room_is_tried_later(ray_cluster: RayCluster) -> None:
    """The room of the lost lane may be taken; nothing waits in the queue for it afterwards."""
    spec = SPEC.model_copy(update={"encode": LaneSpec(num_cpus=5)})

    class Squatter:
        """Takes the lane's room."""

        def there(self) -> None: ...

    with World(spec) as world:
        lane = world.lane("encode")
        ray.kill(actors(lane)[0])
        squatter: Any = ray.remote(num_cpus=5)(Squatter).remote()
        ray.get(squatter.there.remote())
        world.fleet._site.spec = spec.model_copy(update={"room_seconds": 2.0})
        with pytest.raises(NoRoom, match="no room for encode"):
            world.wait(world.fleet.rebuild(lane))
        ray.kill(squatter)
        world.fleet._site.spec = spec
        new = world.wait(world.fleet.rebuild(lane))
        world.wait(new.run(script("work"), ()))


def test_a_lost_node_takes_its_lanes_and_payloads_which_are_told_apart() -> None:
    """In a cluster of its own, in a process of its own: it loses a node with half a group and a payload."""
    command = [sys.executable, "-m", "tests.servers.lost_node"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **ENV}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))  # Ray talks there, too
    assert told["group"] == "LaneLost"
    assert told["payload"] == "StateLost"
    assert told["moved"], "the group's new place is on the node that is left"
    assert told["served"] == told["name"]

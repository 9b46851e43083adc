"""How long a fleet takes to heal: after the death of a rank, and of its control plane; and what other lanes notice.

The group has two ranks with the embedded default's models at a small size. The other lanes sleep for their stage times:
a starting process takes a core, and on a small machine real stages would be measured against that.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from actors.fleet_spec import FleetSpec, GroupSpec, LaneSpec
from gamecraft_core.base.errors import LaneLost
from tests.bench.harness import Bench
from tests.fakes.roles import DENOISING, script
from tests.ray.fleets import Lane, World, at_work, denoise_order, denoise_payloads, pids
from tests.ray.test_adopt import left_behind
from tests.servers.cluster import RayCluster, local_cluster

ROOT = Path(__file__).resolve().parents[2]
GOAL_RECOVERY_S = 10.0
GOAL_ADOPTION_S = 5.0
GOAL_OTHERS = 0.9
SAMPLES = 3

STAGE_S = 0.2
LANES = 4
BEFORE_S = 10.0


def recovery(world: World) -> tuple[float, float]:
    """Seconds from a rank's SIGKILL, in an order, to the group's next answer; and the other lanes' rate over before."""
    return world.wait(_recovery(world))  # type: ignore[no-any-return]


async def _recovery(world: World) -> tuple[float, float]:
    done: list[float] = []
    others = [lane for lane in world.fleet.lanes if lane.stage == "decode"]
    busy = [asyncio.create_task(_keep_busy(lane, done)) for lane in others for _ in range(lane.depth)]
    group, payloads = world.lane("denoise"), denoise_payloads()
    victim = pids(group)[1]
    began = time.monotonic()
    await asyncio.sleep(BEFORE_S)
    running = asyncio.create_task(group.run(denoise_order(2000), payloads))
    await at_work(group, running)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    try:
        await running
    except LaneLost:
        new = await world.fleet.rebuild(group)
    await new.run(denoise_order(), payloads)
    served = time.monotonic()
    for each in busy:
        each.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    before = sum(began <= moment < killed for moment in done) / (killed - began)
    within = sum(killed <= moment < served for moment in done) / (served - killed)
    return served - killed, within / before


async def _keep_busy(lane: Lane, done: list[float]) -> None:
    while True:
        await lane.run(script(f"still {STAGE_S}"), ())
        done.append(time.monotonic())


def adoption(cluster: RayCluster) -> list[float]:
    """Seconds from a start to a served chunk, the fleet being there already; the first time after a SIGKILL."""
    spec = FleetSpec(name="adoption", denoise=(GroupSpec(sp_degree=2),), detached=True)
    seconds = []
    with left_behind(cluster, spec) as told:
        for sample in range(SAMPLES):
            began = time.monotonic()
            with World(spec, DENOISING) as world:
                lane = world.lane("denoise")
                world.wait(lane.run(denoise_order(), denoise_payloads()))
                seconds.append(time.monotonic() - began)
                assert pids(lane) == told["pids"], "not adopted but started"
                if sample == SAMPLES - 1:
                    world.wait(world.fleet.dismiss())
    return seconds


def main() -> int:
    bench = Bench("recovery", {"samples": SAMPLES, "stage_seconds": STAGE_S, "other_lanes": LANES, "sp_degree": 2})
    spec = FleetSpec(name="recovery", denoise=(GroupSpec(sp_degree=2),), decode=LaneSpec(lanes=LANES))
    with local_cluster(ROOT) as cluster:
        with World(spec, DENOISING) as world:
            samples = [recovery(world) for _ in range(SAMPLES)]
        adopted = adoption(cluster)
    bench.figure("rank_killed_to_serving", [seconds for seconds, _ in samples], "s", goal=GOAL_RECOVERY_S)
    bench.figure("other_lanes_rate", [ratio for _, ratio in samples], "1", goal=GOAL_OTHERS, better="higher")
    bench.figure("adoption", adopted, "s", goal=GOAL_ADOPTION_S)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())

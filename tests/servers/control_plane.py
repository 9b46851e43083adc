"""A control plane to be killed: it starts a detached fleet, says what it has, and holds on until its stdin closes.

Arguments: the cluster's address, its namespace, the fleet as JSON, and how many steps its last chunk has (0: none).
It prints one JSON object: the fleet's identity, the group's processes and the SHA-256 of one chunk's latents; by then
the last chunk is at work.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import ray

from actors.fleet_spec import FleetSpec
from tests.fakes.roles import DENOISING
from tests.ray.fleets import World, at_work, denoise_order, denoise_payloads, pids


def main(address: str, namespace: str, spec: str, steps: str) -> None:
    ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR)
    world = World(FleetSpec.model_validate_json(spec), DENOISING)
    lane = world.lane("denoise")
    receipt, _ = world.wait(lane.run(denoise_order(), denoise_payloads()))
    told = {"identity": world.fleet.identity, "pids": pids(lane), "sha256": receipt.facts["latents_sha256"]}
    world.wait(_hold_on(lane, int(steps), told))


async def _hold_on(lane: Any, steps: int, told: dict[str, Any]) -> None:
    if steps:
        running = asyncio.create_task(lane.run(denoise_order(steps), denoise_payloads()))
        await at_work(lane, running)
    print(json.dumps(told), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    main(*sys.argv[1:])

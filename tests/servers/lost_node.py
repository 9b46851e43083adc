"""A Ray cluster of three nodes that loses one, with half a group and a payload on it; prints what a fleet made of it.

Run as a program: it starts and ends Ray processes of its own, which no session-wide cluster may notice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import tempfile
from typing import Any

#: A node that does not answer for this long is lost.
_IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "5",
}
_STORE_BYTES = 100 << 20


def main() -> None:
    os.environ |= _IMPATIENT
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="fl-", dir="/tmp")  # sockets live in it: its path has to be short
    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": _STORE_BYTES, "temp_dir": folder}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        # The group's ranks fit on a node of the two, not on the head.
        nodes = [cluster.add_node(num_cpus=8, object_store_memory=_STORE_BYTES) for _ in range(2)]
        ray.init(address=cluster.address, namespace="lost-node", log_to_driver=False, logging_level=logging.ERROR)
        print(json.dumps(asyncio.run(_lose_a_node(cluster, nodes))), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


async def _lose_a_node(cluster: Any, nodes: list[Any]) -> dict[str, Any]:
    import ray

    from actors import fleet
    from actors.fleet_spec import FleetSpec, GroupSpec
    from actors.processes import process_of
    from gamecraft_core.base.errors import FramelaneError
    from tests.fakes.roles import LIGHT, script
    from tests.ray.fleets import actors, small_preset

    ranks = GroupSpec(sp_degree=2, num_cpus=3)
    spec = FleetSpec(name="three nodes", denoise=(ranks,), room_seconds=60.0)
    kept = await fleet.start(spec, [small_preset()], "memory://tests", {}, LIGHT)
    group = next(lane for lane in kept.lanes if lane.stage == "denoise")
    other = next(lane for lane in kept.lanes if lane.stage == "text")
    _, payload = await group.run(script("array 4"), ())
    there = process_of(actors(group)[0])
    assert there is not None

    async def failure(order: Any, payloads: tuple[Any, ...], lane: Any) -> str:
        try:
            await lane.run(order, payloads)
        except FramelaneError as error:
            return type(error).__name__
        return "none"

    running = asyncio.create_task(failure(script("work 60"), (), group))
    cluster.remove_node(next(node for node in nodes if node.node_id == there.node), allow_graceful=False)
    lost = await running
    unread = await failure(script("work"), (payload,), other)
    new = await kept.rebuild(group)
    receipt, _ = await new.run(script("work"), ())
    moved = [process_of(actor) for actor in actors(new)]
    kept.close()
    living = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return {
        "group": lost,
        "payload": unread,
        "moved": all(process is not None and process.node in living - {there.node} for process in moved),
        "name": new.name,
        "served": receipt.lane,
    }


if __name__ == "__main__":
    main()

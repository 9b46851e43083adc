"""Processes behind actors: where they are, and that they are really gone.

``ray.kill`` does not wait, and a stopped process (SIGSTOP) does not hear it: its node ends it five seconds later. Until
then it holds its GPU's memory. So whoever rebuilds a lane has the node itself end what is left, and wait for it.
Ray's own tables are private; they are read here and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gamecraft_core.base.errors import LaneLost

#: How long a process may take to end, and how long its node to say so.
_EXIT_TIMEOUT_S = 10.0
_NODE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Process:
    """An actor's process: node id and process id there."""

    node: str
    pid: int


def process_of(actor: Any) -> Process | None:
    """Where ``actor`` runs or ran; None where it never had a process."""
    from ray._private.state import actors

    row = actors(actor_id=actor._ray_actor_id.hex())
    return Process(row["Address"]["NodeID"], row["Pid"]) if row and row["Pid"] else None


def creator_of(actor: Any) -> str:
    """The Ray job that made ``actor``."""
    from ray._private.state import actors

    return str(actors(actor_id=actor._ray_actor_id.hex()).get("JobID", ""))


def is_running(job: str) -> bool:
    """The driver of Ray job ``job`` is still there."""
    from ray._private.state import jobs

    return any(each["JobID"] == job and not each["IsDead"] for each in jobs())  # type: ignore[no-untyped-call]


def living_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]


def draining_nodes() -> set[str]:
    """Nodes that are about to go: nothing new is placed there, what runs goes on until they go. Takes a round trip."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


def staying_nodes() -> set[str]:
    return living_nodes() - draining_nodes()


def nodes_of(actors: Iterable[Any]) -> frozenset[str]:
    """The nodes of ``actors``, of those that have a process."""
    return frozenset(process.node for actor in actors if (process := process_of(actor)) is not None)


def stands(place: PlacementGroup) -> bool:
    """All of ``place`` is reserved, on nodes that live and stay."""
    table = placement_group_table(place)
    if table.get("state") != "CREATED":
        return False
    return set(table["bundles_to_node_id"].values()) <= staying_nodes()


async def end(actors: Iterable[Any]) -> None:
    """Kill ``actors`` and wait until their processes are gone. LaneLost where a node that stays does not say so."""
    by_node: dict[str, list[int]] = {}
    for actor in actors:
        process = process_of(actor)
        with suppress(RayError, ValueError):
            ray.kill(actor)
        if process is not None:
            by_node.setdefault(process.node, []).append(process.pid)
    await asyncio.gather(*(_end_on(node, pids) for node, pids in by_node.items()))


async def _end_on(node: str, pids: list[int]) -> None:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        async with asyncio.timeout(_NODE_TIMEOUT_S):
            left = await _END.options(scheduling_strategy=there).remote(pids)
    except (RayError, TimeoutError) as error:
        if node not in staying_nodes():
            return  # what ran there ends with it, if it has not; a node that is about to go starts nothing any more
        raise LaneLost(f"node {node[:8]} does not answer: {error or 'timeout'}") from error
    if left:
        raise LaneLost(f"processes {left} on node {node[:8]} do not end")


def _end_processes(pids: list[int]) -> list[int]:
    """Kill those of ``pids`` that are still actors, wait for their end, and return those that stay."""
    return [pid for pid in pids if not _ended(pid)]


def _ended(pid: int) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The number may be somebody else's by now; Ray names its processes, and the handle stays with this one.
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            return True
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return bool(select.select([handle], [], [], _EXIT_TIMEOUT_S)[0])
    except (FileNotFoundError, ProcessLookupError):
        return True
    finally:
        os.close(handle)


_END: Any = ray.remote(num_cpus=0, max_retries=0)(_end_processes)

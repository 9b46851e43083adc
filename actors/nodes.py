"""The same function on every node of the connected cluster: one task each, pinned to its node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True, slots=True)
class Node:
    """A living node as Ray knows it: its name for people, what it offers, and where its raylet listens."""

    id: str
    name: str
    address: str
    resources: Mapping[str, float]
    ports: tuple[int, ...]


def living() -> list[Node]:
    """Every living node; several of one host are told apart by their ids."""
    rows = [row for row in ray.nodes() if row["Alive"]]  # type: ignore[no-untyped-call]
    hosts = [row["NodeManagerAddress"] for row in rows]
    return [
        Node(
            row["NodeID"],
            host if hosts.count(host) == 1 else f"{host} {row['NodeID'][:6]}",
            host,
            row["Resources"],
            (row["NodeManagerPort"], row["ObjectManagerPort"]),
        )
        for row, host in zip(rows, hosts, strict=True)
    ]


def on_each(
    nodes: list[Node], function: Callable[..., Any], arguments: Callable[[Node], Any], timeout_s: float
) -> list[Any]:
    """``function(arguments(node))`` on every node, in order; an error in the place of what did not come."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(function)
    sent = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(arguments(node))
        for node in nodes
    ]
    there, _ = ray.wait(sent, num_returns=len(sent), timeout=timeout_s)
    return [_answer(each) if each in there else TimeoutError(f"no answer in {timeout_s:g} s") for each in sent]


def _answer(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except RayError as error:
        return error

"""Checks between machines: ports that must be free, ports that must answer, and nodes that must be alike."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs.checkup.finding import Asked, Check, Finding, carried_out
from jobs.checkup.places import skewed

if TYPE_CHECKING:
    from actors.nodes import Node

_CONNECT_TIMEOUT_S = 3.0
#: A node imports torch, and weighs what a preset needs.
_NODE_TIMEOUT_S = 120.0


def port_is_free(name: str, port: int, *, needed: bool) -> Finding:
    """Whether this machine can listen on ``port``; ``needed``: nothing else will do."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            seen = f"port {port}: {error.strerror}"
            return Finding(name, "fail" if needed else "warn", seen, "choose another, or end what listens there")
    return Finding(name, "ok", f"port {port} is free")


def answers(name: str, places: Sequence[tuple[str, int]]) -> Finding:
    """Whether every (host, port) of ``places`` takes a connection from here."""
    silent = []
    for host, port in places:
        try:
            socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
        except OSError as error:
            silent.append(f"{host}:{port} ({error.strerror or error})")
    if silent:
        remedy = "open Ray's ports between the machines (see infra); start Ray where it does not run"
        return Finding(name, "fail", f"no answer from {', '.join(silent)}", remedy)
    return Finding(name, "ok", f"{len(places)} ports answer")


def nodes(asked: Asked, checks: Sequence[Check]) -> list[Finding]:
    """Every check on every node of the connected cluster, and what they must have in common."""
    from actors.nodes import living, on_each

    there = living()
    on_gpus = any(node.resources.get("GPU", 0) for node in there)
    found = [
        answers("Ray's ports", [(node.address, port) for node in there for port in node.ports]),
        _room(asked, there),
    ]

    def arguments(node: Node) -> tuple[Asked, Sequence[Check]]:
        gpus = int(node.resources.get("GPU", 0))
        store = int(node.resources.get("object_store_memory", asked.object_store))
        return replace(asked, gpus=gpus, object_store=store, has_lanes=gpus > 0 or not on_gpus), checks

    sent = time.time()
    for node, answer in zip(there, on_each(there, on_node, arguments, _NODE_TIMEOUT_S), strict=True):
        found += _of_node(node.name, answer, sent)
    return [*found, _alike(found)]


def on_node(arguments: tuple[Asked, Sequence[Check]]) -> tuple[float, float, list[Finding]]:
    """What a node answers: its clock when it began and when it ended, and its findings."""
    began = time.time()
    asked, checks = arguments
    found = carried_out(checks, asked)
    return began, time.time(), found


def _of_node(name: str, answer: Any, sent: float) -> list[Finding]:
    if isinstance(answer, BaseException):
        said = f"it cannot carry out checks: {str(answer).strip().splitlines()[-1]}"
        return [Finding("node", "fail", said, "see that this code and its packages are there, and Ray's logs", name)]
    began, ended, found = answer
    heard = time.time()
    # It began after we asked and ended before we heard: outside of that its clock differs from ours.
    skew = max(0.0, sent - began, ended - heard)
    clock = replace(skewed(skew, "the clock here"), name="node clock", node=name)
    return [clock, *(replace(each, node=name) for each in found)]


def _room(asked: Asked, there: Sequence[Node]) -> Finding:
    """The fleet against what the cluster offers now."""
    wanted = dict(zip(("CPU", "GPU"), asked.fleet.reserved(len(asked.presets)), strict=True))
    offered = {name: sum(node.resources.get(name, 0.0) for node in there) for name in wanted}
    seen = ", ".join(f"{wanted[name]:g} of {offered[name]:g} {name}" for name in wanted)
    seen = f"fleet {asked.fleet.name} reserves {seen} on {len(there)} nodes"
    if any(wanted[name] > offered[name] for name in wanted):
        remedy = "a smaller fleet, or more nodes; a cluster that grows by itself may still have them"
        return Finding("room", "fail" if asked.fleet.fixed else "warn", seen, remedy, "cluster")
    return Finding("room", "ok", seen, node="cluster")


def _alike(found: Sequence[Finding]) -> Finding:
    """Whether the facts that nodes must share are the same everywhere."""
    values: dict[str, dict[str, list[str]]] = {}
    for each in found:
        for fact, value in each.same.items():
            values.setdefault(fact, {}).setdefault(value, []).append(each.node)
    unlike = [
        f"{fact}: " + ", ".join(f"{value} on {len(where)} ({where[0]})" for value, where in by_value.items())
        for fact, by_value in values.items()
        if len(by_value) > 1
    ]
    if unlike:
        return Finding("nodes alike", "fail", "; ".join(unlike), "use one image on every node", "cluster")
    return Finding("nodes alike", "ok", ", ".join(sorted(values)) or "nothing to compare", node="cluster")

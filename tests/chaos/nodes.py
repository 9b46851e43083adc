"""A Ray cluster to be hurt: a head without room for lanes, and nodes that are killed and replaced.

Every node is a ``ray start --block`` of its own with an address of its own on loopback. All of it lives in one folder
and dies with this process, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.child import free_port
from tests.servers.cluster import ENV, processes_using

#: Room for the whole fleet, so that one node is enough while the other is being replaced; lanes spread from half.
_NODE_CPUS = 1
_OBJECT_STORE_BYTES = 200 << 20
_READY = "--block"
_READY_TIMEOUT_S = 60.0
_STARTS = 3
_GONE_TIMEOUT_S = 30.0
_POLL_S = 0.1

#: A dead node is noticed soon, and a busy one not taken for dead.
_RAY_ENV = {
    **ENV,
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}

#: What dies with its parent, even where that is killed.
BOUND = ("setpriv", "--pdeathsig", "KILL")

ROLES = {
    "DenoiseRank": "rank",
    "DecodeActor": "decoder",
    "WriteActor": "writer",
    "TextActor": "text",
    "EncodeActor": "encoder",
}


@dataclass(frozen=True, slots=True)
class Process:
    """An actor's process: what it is, the node it runs on, and the kernel's letter for its state."""

    pid: int
    role: str
    node: str
    state: str


@dataclass(slots=True)
class Node:
    """A node that was started: the name it goes by, and the process whose end is its end."""

    name: str
    starter: asyncio.subprocess.Process
    log: Path


@dataclass(slots=True)
class Nodes:
    """The cluster. ``env`` is what its actors have in their environment beside the project itself."""

    folder: Path
    env: Mapping[str, str]
    address: str = ""
    members: list[Node] = field(default_factory=list)
    _head: Node | None = None
    _started: int = 0
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, nodes: int = 2) -> None:
        port = free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        head = ["--head", "--port", str(port), "--temp-dir", str(self.folder), "--include-dashboard", "false"]
        self._head = await self._launch("head", *head, "--num-cpus", "0")
        self.address = f"127.0.0.1:{port}"
        for _ in range(nodes):
            await self.add()

    async def add(self) -> Node:
        """One more node, ready to take lanes. One at a time: Ray picks the names of their sockets unguarded."""
        async with self._starting:
            self._started += 1
            where = ["--address", self.address, "--node-ip-address", f"127.0.0.{self._started + 1}"]
            node = await self._launch(f"node-{self._started}", *where, "--num-cpus", str(_NODE_CPUS))
            self.members.append(node)
        return node

    async def remove(self, index: int) -> tuple[str, list[int]]:
        """Kill a node with all that runs on it; its name and the actors' processes that went with it."""
        node = self.members.pop(index % len(self.members))
        actors = [process.pid for process in self.actors() if process.node == node.name]
        for pid in (node.starter.pid, *_below(node.starter.pid)):
            _kill(pid)
        await node.starter.wait()
        return node.name, actors

    def actors(self) -> list[Process]:
        """The fleet's processes, oldest first."""
        table = _table()
        raylets = {
            pid: node.name
            for node in self.members
            for pid, (parent, _, command) in table.items()
            if parent == node.starter.pid and b"/raylet/raylet" in command.partition(b"\0")[0]
        }
        found = []
        for pid, (parent, state, command) in table.items():
            title = command.partition(b"\0")[0].decode(errors="replace").removeprefix("ray::").partition(".")[0]
            if parent in raylets and title in ROLES and state not in "ZX":
                found.append(Process(pid, ROLES[title], raylets[parent], state))
        return sorted(found, key=lambda process: process.pid)

    async def close(self) -> list[str]:
        """Kill every node and wait until nothing uses the folder; what had to be killed for that."""
        for node in (*self.members, *([self._head] if self._head else [])):
            for pid in (node.starter.pid, *_below(node.starter.pid)):
                _kill(pid)
            await node.starter.wait()
        self.members.clear()
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        while (left := processes_using(self.folder)) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        for pid in left:
            _kill(pid)
        return list(left.values())

    async def _launch(self, name: str, *where: str) -> Node:
        """Start a node. Ray gives up after 30 s, which a crowded machine may need: there is more than one try."""
        log = self.folder.with_name(f"{self.folder.name}-{name}.log")
        for _ in range(_STARTS):
            starter = await self._begun(log, *where)
            deadline = time.monotonic() + _READY_TIMEOUT_S
            while starter.returncode is None and time.monotonic() < deadline:
                if _READY in log.read_text(errors="replace"):
                    return Node(name, starter, log)
                await asyncio.sleep(_POLL_S)
            _kill(starter.pid)
            await starter.wait()
        raise RuntimeError(f"Ray's {name} did not start:\n{log.read_text(errors='replace')[-2000:]}")

    async def _begun(self, log: Path, *where: str) -> asyncio.subprocess.Process:
        command = [*BOUND, sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--block"]
        command += ["--disable-usage-stats", "--object-store-memory", str(_OBJECT_STORE_BYTES)]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--include-log-monitor", "false"]
        with log.open("wb") as out:
            return await asyncio.create_subprocess_exec(
                *command, env={**os.environ, **_RAY_ENV, **self.env}, stdout=out, stderr=out, start_new_session=True
            )


def alive(pid: int) -> bool:
    """The process is there and no zombie."""
    found = _stat(pid)
    return found is not None and found[1] not in "ZX"


def state_of(pid: int) -> str:
    """The kernel's letter for the process: T is stopped, "" gone."""
    found = _stat(pid)
    return found[1] if found else ""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> Iterable[int]:
    """Every process that descends from ``pid``."""
    table = _table()
    found = [pid]
    for each in found:
        found += [child for child, (parent, _, _) in table.items() if parent == each]
    return found[1:]


def _table() -> dict[int, tuple[int, str, bytes]]:
    """Every process: its parent, state and command line."""
    table = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (found := _stat(int(entry.name))) is not None:
                table[int(entry.name)] = (*found, (entry / "cmdline").read_bytes())
    return table


def _stat(pid: int) -> tuple[int, str] | None:
    """Parent and state; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0]

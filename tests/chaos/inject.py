"""Faults carried out, each with the proof that it struck: a process that was alive and is gone, a request that met it.

Outages last while other faults go on. A point is armed and strikes when somebody reaches it, in this round or a later
one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.nodes import Nodes, Process, alive, state_of
from tests.chaos.schedule import Fault
from tests.chaos.storage import Storage
from tests.servers.proxy import Mode

_ROLES = {
    "kill_rank": "rank",
    "kill_decoder": "decoder",
    "kill_writer": "writer",
    "kill_text": "text",
    "kill_encoder": "encoder",
    "stop_rank": "rank",
}
_MODES: dict[str, Mode] = {
    "s3_slow": "latency",
    "s3_busy": "unavailable",
    "s3_drop": "drop_reply",
    "s3_refuse": "refuse",
    "s3_kill": "refuse",
}
_LATENCY_S = 0.1
#: How fast patience runs out while nothing can be stored, because a driver or its fleet is only starting.
_STARTING = 0.25
_GONE_TIMEOUT_S = 5.0
_POLL_S = 0.02
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that struck: when (and until when, for an outage), whom, and what it hit."""

    fault: Fault
    at: float
    until: float
    victim: str
    hit: dict[str, Any]


@dataclass(slots=True)
class Injector:
    """Carries out faults, one after the other. ``driver`` tells the driver's process, ``serving`` if its fleet serves.

    Of every fault exactly one thing is true in the end: it is in ``struck``, or in ``missed``, or still in ``waiting``
    (to be tried later), or its point is still armed.
    """

    nodes: Nodes
    storage: Storage
    points: Path
    driver: Callable[[], int | None] = lambda: None
    serving: Callable[[], bool] = lambda: False
    struck: list[Strike] = field(default_factory=list)
    missed: list[Fault] = field(default_factory=list)
    waiting: deque[Fault] = field(default_factory=deque)
    stopped: set[int] = field(default_factory=set)
    _armed: dict[str, deque[Fault]] = field(default_factory=dict)
    _tries: Counter[int] = field(default_factory=Counter)
    _outages: list[asyncio.Task[None]] = field(default_factory=list)

    async def go(self, over: Callable[[], bool]) -> None:
        """Carry out what waits, each when it is due, until the round is ``over``."""
        while self.waiting and not over():
            if await self._due(self.waiting[0], over):
                await self.carry_out(self.waiting.popleft())

    async def carry_out(self, fault: Fault) -> None:
        """Do it now; an outage goes on behind."""
        if fault.kind == "point":
            self._armed.setdefault(fault.point, deque()).append(fault)
            self._arm(fault.point)
        elif fault.kind == "remove_node":
            self._behind(self._remove_node(fault))
        elif fault.kind in _MODES:
            self._behind(self._outage(fault))
        elif fault.kind == "kill_driver":
            await self._kill(fault, self.driver(), "driver")
        else:
            await self._actor(fault)

    async def calm(self) -> None:
        """Wait until every outage is over and every node is there."""
        outages, self._outages = self._outages, []
        await asyncio.gather(*outages)

    def look(self, role_of: Callable[[int], str]) -> None:
        """Take note of points that have struck since; arm those again that are to strike once more."""
        for path in self.points.glob("*.struck-*"):
            point, _, number = path.name.rpartition(".struck-")
            pid = int(number)
            if alive(pid):
                continue
            path.unlink()
            fault = self._armed[point].popleft()
            self._note(fault, f"{role_of(pid)} {pid}", pid=pid)
            self._arm(point)

    def armed(self) -> Iterator[Fault]:
        """Faults whose points nobody has reached yet."""
        return (fault for faults in self._armed.values() for fault in faults)

    def disarm(self) -> None:
        """Take all points away; their faults are due again."""
        for point, faults in self._armed.items():
            (self.points / point).unlink(missing_ok=True)
            self.waiting.extend(faults)
            faults.clear()

    def _arm(self, point: str) -> None:
        if self._armed[point]:
            (self.points / point).touch()

    async def _due(self, fault: Fault, over: Callable[[], bool]) -> bool:
        """Wait for the fault's moment; False where the round was over before."""
        waited, last, stored = 0.0, time.monotonic(), self.storage.proxy.stored
        while self.storage.proxy.stored < stored + fault.puts and waited < fault.patience:
            if over():
                return False
            await asyncio.sleep(_POLL_S)
            now = time.monotonic()
            waited += (now - last) * (1.0 if self.serving() else _STARTING)
            last = now
        await asyncio.sleep(fault.delay)
        return not over()

    async def _actor(self, fault: Fault) -> None:
        stop = fault.kind == "stop_rank"
        process = self._pick(_ROLES[fault.kind], fault.target)
        if process is None:
            self._later(fault)
        elif stop:
            await self._stop(fault, process)
        else:
            await self._kill(fault, process.pid, f"{process.role} {process.pid} on {process.node}")

    def _pick(self, role: str, target: int) -> Process | None:
        """One of the role's processes that run."""
        candidates = [process for process in self.nodes.actors() if process.role == role and process.state != "T"]
        return candidates[target % len(candidates)] if candidates else None

    async def _kill(self, fault: Fault, pid: int | None, victim: str) -> None:
        if pid is None or not alive(pid):
            self._later(fault)
            return
        began = time.time()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if await _until(lambda: not alive(pid)):
            self._note(fault, victim, at=began, pid=pid)
        else:
            self._later(fault)

    async def _stop(self, fault: Fault, process: Process) -> None:
        began = time.time()
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
        if await _until(lambda: state_of(process.pid) == "T"):
            self.stopped.add(process.pid)
            self._note(fault, f"rank {process.pid} on {process.node}", at=began, pid=process.pid)
        else:
            self._later(fault)

    async def _remove_node(self, fault: Fault) -> None:
        if len(self.nodes.members) < 2:
            self._later(fault)
            return
        began = time.time()
        name, actors = await self.nodes.remove(fault.target)
        await asyncio.sleep(fault.seconds)
        added = await self.nodes.add()
        self._note(fault, name, at=began, actors=actors, replaced_by=added.name)

    async def _outage(self, fault: Fault) -> None:
        async with self.storage.outage:
            began = time.time()
            if fault.kind == "s3_kill" and self.storage.can_be_killed:
                met = int(await self.storage.kill(fault.seconds))
            else:
                met = await self.storage.fault(_MODES[fault.kind], fault.seconds, _LATENCY_S)
        if met:
            self._note(fault, self.storage.name, at=began, met=met)
        else:
            self._later(fault)

    def _behind(self, work: Coroutine[Any, Any, None]) -> None:
        self._outages.append(asyncio.create_task(work))

    def _later(self, fault: Fault) -> None:
        """Nobody was there to be hit: try it again after the others, a few times."""
        self._tries[fault.number] += 1
        if self._tries[fault.number] < _TRIES:
            self.waiting.append(fault)
        else:
            self.missed.append(fault)

    def _note(self, fault: Fault, victim: str, at: float | None = None, **hit: Any) -> None:
        now = time.time()
        self.struck.append(Strike(fault, now if at is None else at, now, victim, hit))


async def _until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    while not true():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True

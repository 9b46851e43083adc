"""Who lived when: every process of the fleet and every driver, seen from outside a few times a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.inject import Injector
from tests.chaos.nodes import Nodes

_EVERY_S = 0.25


@dataclass(slots=True)
class Life:
    """A process from when it was first seen to when it was last seen (``time.time()``)."""

    pid: int
    role: str
    node: str
    first: float
    last: float


@dataclass(slots=True)
class Census:
    """Looks at the cluster until it is cancelled, and has the injector look at its points."""

    nodes: Nodes
    injector: Injector
    driver: Callable[[], int | None]
    lives: list[Life] = field(default_factory=list)
    _living: dict[int, Life] = field(default_factory=dict)

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        now = time.time()
        seen = {process.pid: (process.role, process.node) for process in self.nodes.actors()}
        if (driver := self.driver()) is not None:
            seen[driver] = ("driver", "head")
        for pid, (role, node) in seen.items():
            life = self._living.get(pid)
            if life is None or life.role != role:
                life = self._living[pid] = Life(pid, role, node, now, now)
                self.lives.append(life)
            life.last = now
        self._living = {pid: self._living[pid] for pid in seen}
        self.injector.look(self.role_of)

    def role_of(self, pid: int) -> str:
        """What the process was; one that died before it was seen is nameless."""
        return next((life.role for life in reversed(self.lives) if life.pid == pid), "process")

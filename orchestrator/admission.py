"""Who may come in, who waits, and who is refused, with the reason and the place in the queue.

Live sessions come in before batch ones; within a class tenants take turns, each with its oldest. A tenant that has all
the sessions it may have is passed over, and holds nobody up. Everything is O(1), or was paid for by an arrival.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from gamecraft_core.base.spec import Control, Priority, SessionSpec
from orchestrator.census import Census
from orchestrator.limits import Limits

#: ``sessions``: as many as may be under way are; ``tenant``: as many of this tenant; ``queue``: as many wait already.
Reason = Literal["sessions", "tenant", "queue"]


@dataclass(frozen=True, slots=True)
class Wait:
    """It is in the queue. At most ``position`` - 1 sessions come in before it."""

    reason: Reason
    position: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """It is not in the queue; ``position`` is where it would have been."""

    reason: Reason
    position: int

    def __str__(self) -> str:
        return f"the queue is full: {self.position - 1} sessions wait"


class _Lobby:
    """Those of one class who wait, by tenant. ``turns`` are tenants that may be next, ``full`` those passed over."""

    def __init__(self) -> None:
        self.waiting: dict[str, deque[SessionSpec]] = {}
        self.turns: deque[str] = deque()
        self.full: set[str] = set()

    def add(self, spec: SessionSpec) -> None:
        if spec.tenant not in self.waiting:
            self.waiting[spec.tenant] = deque()
            self.turns.append(spec.tenant)
        self.waiting[spec.tenant].append(spec)


class Admissions:
    """The queue before the board. Whoever comes is offered; whoever may go in comes out of ``next``."""

    def __init__(self, limits: Limits, census: Census) -> None:
        self._limits = limits
        self._census = census
        self._lobbies = {"interactive": _Lobby(), "batch": _Lobby()}
        self._queued: dict[str, SessionSpec] = {}
        self._amended: dict[str, SessionSpec] = {}
        self._length = {"interactive": 0, "batch": 0}

    def __len__(self) -> int:
        return len(self._queued)

    def room(self, tenant: str, priority: Priority) -> Wait | Refusal | None:
        """What ``offer`` would answer to such a session; nothing changes."""
        reason = self._obstacle(tenant)
        if reason is None:
            return None
        if len(self._queued) >= self._limits.max_queued:
            return Refusal("queue", len(self._queued) + 1)
        ahead = self._length["interactive"] + (self._length["batch"] if priority == "batch" else 0)
        return Wait(reason, ahead + 1)

    def offer(self, spec: SessionSpec) -> Wait | Refusal | None:
        """None when ``spec`` may come in now, and so is not queued."""
        answer = self.room(spec.tenant, spec.priority)
        if isinstance(answer, Wait):
            self._queued[spec.session_id] = spec
            self._length[spec.priority] += 1
            self._lobbies[spec.priority].add(spec)
        return answer

    def withdraw(self, session_id: str) -> SessionSpec | None:
        """It waits no more; None when it did not."""
        spec = self._queued.pop(session_id, None)
        if spec is None:
            return None
        self._length[spec.priority] -= 1
        return self._amended.pop(session_id, spec)

    def amend(
        self, session_id: str, controls: tuple[Control, ...] = (), *, finished: bool = False
    ) -> SessionSpec | None:
        """An open session that still waits goes on with ``controls``, or gets no more; None where none such waits."""
        spec = self._amended.get(session_id) or self._queued.get(session_id)
        if spec is None or not spec.open:
            return None
        spec = self._amended[session_id] = replace(spec, controls=spec.controls + controls, open=not finished)
        return spec

    def left(self, tenant: str) -> None:
        """A session of ``tenant`` ended."""
        for lobby in self._lobbies.values():
            if tenant in lobby.full:
                lobby.full.discard(tenant)
                lobby.turns.append(tenant)

    def next(self) -> SessionSpec | None:
        """Who comes in now, if anybody may; the caller admits it before it asks again."""
        if not self._queued or self._census.sessions >= self._limits.max_sessions:
            return None
        for lobby in self._lobbies.values():
            while lobby.turns:
                tenant = lobby.turns.popleft()
                if self._full(tenant):
                    lobby.full.add(tenant)
                    continue
                spec = self._oldest(lobby, tenant)
                if spec is not None:
                    return spec
        return None

    def _oldest(self, lobby: _Lobby, tenant: str) -> SessionSpec | None:
        """The first of ``tenant`` that has not withdrawn; the tenant goes to the end of the turns, or out."""
        waiting = lobby.waiting[tenant]
        while waiting:
            spec = waiting.popleft()
            if self._queued.get(spec.session_id) is spec:
                if waiting:
                    lobby.turns.append(tenant)
                else:
                    del lobby.waiting[tenant]
                return self.withdraw(spec.session_id)
        del lobby.waiting[tenant]
        return None

    def _obstacle(self, tenant: str) -> Reason | None:
        if self._full(tenant):
            return "tenant"
        return "sessions" if self._census.sessions >= self._limits.max_sessions else None

    def _full(self, tenant: str) -> bool:
        most = self._limits.of_tenant(tenant).max_sessions
        return most is not None and self._census.tenants.get(tenant, 0) >= most

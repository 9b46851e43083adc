"""Ready tasks of one stage, and whose turn it is: tenants by weighted virtual time, then tasks by rank.

Start-time fair queueing: a tenant's tag advances by 1/weight a dispatch, the smallest tag is next, and a tenant that
comes back after it had nothing to do starts at the stage's clock: it neither hoards claims nor has to pay for others.
Everything is O(log n): a heap of tenants over a heap of tasks each. Entries that no longer tell the truth (a tag has
moved on, a session has ended) are put right or dropped when they reach the top.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import Any

from orchestrator.census import Census
from orchestrator.limits import Limits
from orchestrator.policy import BATCH
from orchestrator.tasks import Need, Rank, Task

#: Tenants remembered after they have nothing ready, at least; one that is forgotten begins again as a new one.
_REMEMBERED = 4096

#: What a ready queue's best task is compared by with those of other queues; a smaller one goes first.
Claim = tuple[Any, ...]


class Share:
    """One tenant's claim on a stage: its tag, its ready tasks, and how far its own sessions have come."""

    __slots__ = ("cost", "number", "queued", "served", "tag")

    def __init__(self, number: int, weight: float) -> None:
        self.number = number
        self.cost = 1.0 / weight
        self.tag = 0.0
        self.queued = 0
        self.served = 0.0


class Turns:
    """A stage's clock and its tenants' shares. ``waiting`` counts its ready tasks, and some that nobody waits for."""

    def __init__(self, limits: Limits, census: Census) -> None:
        self._limits = limits
        self._sessions = census.tenants
        self._shares: dict[str, Share] = {}
        self._came = 0
        self._sweep_at = _REMEMBERED
        self._latest = 0.0
        self.now = 0.0
        self.waiting = 0

    def share(self, tenant: str) -> Share:
        found = self._shares.get(tenant)
        if found is None:
            if len(self._shares) >= self._sweep_at:
                self._sweep()
            self._came += 1
            found = self._shares[tenant] = Share(self._came, self._limits.of_tenant(tenant).weight)
        return found

    def newcomer(self, tenant: str) -> float:
        """The virtual time at which a new session of ``tenant`` starts."""
        share = self._shares.get(tenant)
        return share.served if share else 0.0

    def charge(self, tenant: str, share: Share, tag: float, rank: Rank) -> None:
        """A task of ``rank`` was dispatched for ``tenant``, whose tag was ``tag``.

        Its own clock moves on as the mean of its sessions' does, so that no stream of newcomers, who start there, can
        hold up a session for ever. When nothing is left waiting, nobody owes anything.
        """
        share.tag = ends = tag + share.cost
        if ends > self._latest:
            self._latest = ends
        if not self.waiting:
            self.now = self._latest
        elif tag > self.now:
            self.now = tag
        served = share.served + 1.0 / self._sessions.get(tenant, 1)
        share.served = served if served > rank[1] else rank[1]

    def _sweep(self) -> None:
        """Forget who has nothing ready and no debt."""
        self._shares = {name: each for name, each in self._shares.items() if each.queued or each.tag > self.now}
        self._sweep_at = max(_REMEMBERED, 2 * len(self._shares))


class _Own:
    """What one tenant has in one queue."""

    __slots__ = ("heap", "share", "tenant")

    def __init__(self, tenant: str, share: Share) -> None:
        self.tenant = tenant
        self.share = share
        self.heap: list[tuple[Rank, int, Task]] = []


class Queue:
    """Ready tasks of one need."""

    __slots__ = ("_by_rank", "_owns", "_pushed", "_tenants", "_turns", "need")

    def __init__(self, need: Need, turns: Turns) -> None:
        self.need = need
        self._turns = turns
        self._pushed = 0
        self._by_rank: list[tuple[Rank, int, Task]] = []
        self._owns: dict[str, _Own] = {}
        self._tenants: list[tuple[float, int, _Own]] = []

    def push(self, task: Task) -> None:
        self._pushed += 1
        self._turns.waiting += 1
        session = task.session
        if session is None or task.rank[0] != BATCH:
            heappush(self._by_rank, (task.rank, self._pushed, task))
            return
        tenant = session.spec.tenant
        own = self._owns.get(tenant)
        share = own.share if own else self._turns.share(tenant)
        if not share.queued and share.tag < self._turns.now:
            share.tag = self._turns.now
        if own is None:
            own = self._owns[tenant] = _Own(tenant, share)
            heappush(self._tenants, (share.tag, share.number, own))
        share.queued += 1
        heappush(own.heap, (task.rank, self._pushed, task))

    def head(self) -> Task | None:
        """The task whose turn it is."""
        first = self._by_rank
        while first:
            if not first[0][2].dead:
                return first[0][2]
            heappop(first)
            self._turns.waiting -= 1
        tenants = self._tenants
        while tenants:
            tag, _, own = tenants[0]
            heap, share = own.heap, own.share
            while heap and heap[0][2].dead:
                heappop(heap)
                share.queued -= 1
                self._turns.waiting -= 1
            if not heap:
                heappop(tenants)
                del self._owns[own.tenant]
            elif tag != share.tag:
                heapreplace(tenants, (share.tag, share.number, own))
            else:
                return heap[0][2]
        return None

    def claim(self) -> Claim:
        """What ``head``, just asked for and not None, is compared by."""
        if self._by_rank:
            return self._by_rank[0][0]
        tag, number, own = self._tenants[0]
        return (BATCH, tag, number, own.heap[0][0])

    def pop(self) -> Task:
        """Take ``head``, just asked for and not None; its tenant is charged."""
        turns = self._turns
        turns.waiting -= 1
        if self._by_rank:
            return heappop(self._by_rank)[2]
        tag, _, own = self._tenants[0]
        rank, _, task = heappop(own.heap)
        share = own.share
        share.queued -= 1
        turns.charge(own.tenant, share, tag, rank)
        if own.heap:
            heapreplace(self._tenants, (share.tag, share.number, own))
        else:
            heappop(self._tenants)
            del self._owns[own.tenant]
        return task

    def __iter__(self) -> Iterator[Task]:
        """Every task that somebody still waits for, in no order."""
        heaps = (self._by_rank, *(own.heap for own in self._owns.values()))
        return (task for heap in heaps for _, _, task in heap if not task.dead)

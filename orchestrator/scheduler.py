"""The scheduler: ready tasks and lanes in, dispatches out.

It knows no clock, no Ray and no asyncio: callers push ready tasks, report what ended, and call ``step``. A decision
costs O(log n) in ready tasks. Invariants: no lane holds more than its depth; every lane is given a first order before
any gets a second; no limit is exceeded; no lane idles while a task it may run is ready and no limit forbids it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gamecraft_core.base.messages import STAGES, Stage
from orchestrator.limits import Limits
from orchestrator.policy import VirtualTime
from orchestrator.ports import Lane
from orchestrator.tasks import Need, Rank, Session, Task

#: Stages nearest the output first: they free what the others fill.
_ORDER: tuple[Stage, ...] = tuple(reversed(STAGES))

#: Stages whose lanes work on one order at a time, in the order of arrival; in others all that they hold is under way.
_SERIAL: tuple[Stage, ...] = ("text", "encode", "denoise")


@dataclass(slots=True, eq=False)
class _Slot:
    """A lane and what it holds."""

    lane: Lane
    number: int
    tasks: list[Task] = field(default_factory=list)
    gone: bool = False


class _Pool:
    """Interchangeable lanes, the least loaded first. Entries that no longer tell the truth are dropped when met."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, _Slot]] = []
        self.lanes = 0

    def changed(self, slot: _Slot) -> None:
        """``slot`` is new, or its load has changed."""
        if not slot.gone and len(slot.tasks) < slot.lane.depth:
            heapq.heappush(self._heap, (len(slot.tasks), slot.number, slot))

    def best(self) -> tuple[int, int, _Slot] | None:
        """(load, number, slot) of the lane to take next, or None when all are full."""
        heap = self._heap
        while heap and (heap[0][2].gone or heap[0][0] != len(heap[0][2].tasks)):
            heapq.heappop(heap)
        return heap[0] if heap else None


class _Backlog:
    """Chunks between two stages, counted by session so that a failed session's can be forgotten at once."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self.total = 0

    def add(self, session: Session) -> None:
        self._of[session.number] = self._of.get(session.number, 0) + 1
        self.total += 1

    def remove(self, session: Session) -> None:
        if left := self._of.pop(session.number, 0):
            self.total -= 1
            if left > 1:
                self._of[session.number] = left - 1

    def forget(self, session: Session) -> None:
        self.total -= self._of.pop(session.number, 0)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """``task`` goes to ``lane`` now."""

    task: Task
    lane: Lane


class Scheduler:
    """Owns the ready queues, the lanes' loads and the counts that limits are about."""

    def __init__(self, limits: Limits, payload_bytes: Callable[[], int]) -> None:
        self._limits = limits
        self._payload_bytes = payload_bytes
        self._ready: dict[Stage, dict[Need, list[tuple[Rank, int, Task]]]] = {stage: {} for stage in STAGES}
        self._slots: dict[str, _Slot] = {}
        self._pools: dict[Need, _Pool] = {}
        self._able: dict[Need, list[_Pool]] = {}
        self._sequence = itertools.count()
        self._undecoded = _Backlog()
        self._unwritten = _Backlog()
        self.virtual_time = VirtualTime()
        self.parked = 0

    def park(self) -> None:
        """A task that had been dispatched waits for its store: it is neither ready nor in flight, and comes back."""
        self.parked += 1

    def unpark(self, task: Task) -> None:
        self.parked -= 1
        if not task.dead:
            self.push([task])

    def add_lane(self, lane: Lane) -> None:
        slot = self._slots[lane.name] = _Slot(lane, next(self._sequence))
        pool = self._pools.setdefault(_kind(lane), _Pool())
        pool.lanes += 1
        pool.changed(slot)
        self._able.clear()

    def remove_lane(self, lane: Lane) -> list[Task] | None:
        """Take ``lane`` out; returns the tasks that it may have been running, or None when it was out already.

        What it held is reported by its callers as it fails.
        """
        slot = self._slots.get(lane.name)
        if slot is None or slot.lane is not lane:
            return None
        del self._slots[lane.name]
        slot.gone = True
        self._pools[_kind(lane)].lanes -= 1
        return slot.tasks[:1] if lane.stage in _SERIAL else list(slot.tasks)

    def push(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            queue = self._ready[task.stage].setdefault(task.need, [])
            heapq.heappush(queue, (task.rank, next(self._sequence), task))

    def step(self, only: tuple[Stage, ...] | None = None) -> list[Dispatch]:
        """Everything that may start now (of the stages ``only``), in the order in which it should be sent."""
        return [dispatch for stage in only or _ORDER for dispatch in self._fill(stage)]

    def ended(self, task: Task, lane: Lane, *, succeeded: bool) -> None:
        """``task`` left ``lane``. The limits' counts move here and in ``step`` only."""
        slot = self._slots.get(lane.name)
        if slot is not None and slot.lane is lane:
            slot.tasks.remove(task)
            self._pools[_kind(lane)].changed(slot)
        if task.session is None:
            return
        if (task.kind == "denoise" and not succeeded) or (task.kind == "decode" and succeeded):
            self._undecoded.remove(task.session)
        if (task.kind == "decode" and not succeeded) or (task.kind in ("write", "commit") and succeeded):
            self._unwritten.remove(task.session)

    def forget(self, session: Session) -> None:
        """``session`` ended: whatever it has between stages no longer counts against the limits."""
        self._undecoded.forget(session)
        self._unwritten.forget(session)

    def has_lane(self, need: Need) -> bool:
        """Some lane of the fleet, full or not, can meet ``need``."""
        return any(pool.lanes for pool in self._fit(need))

    def waiting(self, stage: Stage) -> int:
        """Ready tasks of ``stage`` that no lane has taken. The metrics endpoint asks from a thread of its own."""
        return sum(len(queue) for queue in list(self._ready[stage].values()))

    def in_flight(self, stage: Stage) -> int:
        return sum(len(slot.tasks) for slot in self._slots.values() if slot.lane.stage == stage)

    def busy(self, stage: Stage) -> int:
        """Lanes of ``stage`` that hold work."""
        return sum(bool(slot.tasks) for slot in self._slots.values() if slot.lane.stage == stage)

    def stranded(self) -> str:
        """In words, what a ready task needs that no lane of the fleet offers (any more)."""
        for queues in self._ready.values():
            for need, queue in queues.items():
                if any(not task.dead for _, _, task in queue) and not any(pool.lanes for pool in self._fit(need)):
                    stage, preset, degree = need
                    degrees = f" at sequence-parallel degree {degree}" if degree else ""
                    return f"{stage}{degrees}{f' with preset {preset}' if preset else ''}"
        return "any task"

    def _fill(self, stage: Stage) -> Iterable[Dispatch]:
        queues = self._ready[stage]
        while not self._held_back(stage):
            chosen: list[tuple[Rank, int, Task]] | None = None
            slot: _Slot | None = None
            for need, queue in queues.items():
                while queue and queue[0][2].dead:
                    heapq.heappop(queue)
                if queue and (chosen is None or queue[0] < chosen[0]) and (free := self._free(need)):
                    chosen, slot = queue, free
            if chosen is None or slot is None:
                return
            _, _, task = heapq.heappop(chosen)
            slot.tasks.append(task)
            self._pools[_kind(slot.lane)].changed(slot)
            self._count(task)
            yield Dispatch(task, slot.lane)

    def _count(self, task: Task) -> None:
        if task.session is None:
            return
        if task.kind == "denoise":
            self._undecoded.add(task.session)
            self.virtual_time.dispatched(task.rank)
        elif task.kind == "decode":
            self._unwritten.add(task.session)

    def _held_back(self, stage: Stage) -> bool:
        """A limit stops this stage. Something must still be moving downstream, or the run would never go on."""
        if stage == "decode":
            return self._unwritten.total >= self._limits.max_unwritten
        if stage not in ("encode", "denoise"):
            return False
        full = self._payload_bytes() >= self._limits.max_payload_bytes
        crowded = stage == "denoise" and self._undecoded.total >= self._limits.max_undecoded
        return (full or crowded) and (self.parked > 0 or any(self._moves(later) for later in _ORDER[:3]))

    def _moves(self, stage: Stage) -> bool:
        """Orders of ``stage`` are under way, or will be: they wait for a lane, a lost one's successor at worst."""
        return self.in_flight(stage) > 0 or (stage != "denoise" and self.waiting(stage) > 0)

    def _fit(self, need: Need) -> list[_Pool]:
        """Pools whose lanes can meet ``need``."""
        if need not in self._able:
            stage, preset, degree = need
            self._able[need] = [
                pool
                for (pool_stage, pool_preset, pool_degree), pool in self._pools.items()
                if pool_stage == stage and pool_preset in (None, preset) and degree in (None, pool_degree)
            ]
        return self._able[need]

    def _free(self, need: Need) -> _Slot | None:
        """The least loaded lane that can meet ``need`` and is not full."""
        best = min((top for pool in self._fit(need) if (top := pool.best())), default=None)
        return best[2] if best else None


def _kind(lane: Lane) -> Need:
    """What a lane offers; lanes that offer the same are interchangeable."""
    return (lane.stage, lane.preset, lane.sp_degree)

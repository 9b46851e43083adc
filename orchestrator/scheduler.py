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


@dataclass(slots=True, eq=False)
class _Slot:
    """A lane and what it holds."""

    lane: Lane
    number: int
    tasks: list[Task] = field(default_factory=list)


class _Backlog:
    """Chunks between two stages, counted by session so that a failed session's can be forgotten at once."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self.total = 0

    def add(self, session: Session) -> None:
        self._of[session.number] = self._of.get(session.number, 0) + 1
        self.total += 1

    def remove(self, session: Session) -> None:
        if self._of.get(session.number):
            self._of[session.number] -= 1
            self.total -= 1

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
        self._slots: dict[Stage, list[_Slot]] = {stage: [] for stage in STAGES}
        self._by_name: dict[str, _Slot] = {}
        self._sequence = itertools.count()
        self._undecoded = _Backlog()
        self._unwritten = _Backlog()
        self.virtual_time = VirtualTime()

    def add_lane(self, lane: Lane) -> None:
        slot = _Slot(lane, next(self._sequence))
        self._slots[lane.stage].append(slot)
        self._by_name[lane.name] = slot

    def remove_lane(self, lane: Lane) -> None:
        """Take ``lane`` out; what it held is reported by its callers as it fails. Twice is the same as once."""
        slot = self._by_name.pop(lane.name, None)
        if slot is not None:
            self._slots[lane.stage].remove(slot)

    def push(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            queue = self._ready[task.stage].setdefault(task.need, [])
            heapq.heappush(queue, (task.rank, next(self._sequence), task))

    def step(self, only: tuple[Stage, ...] | None = None) -> list[Dispatch]:
        """Everything that may start now (of the stages ``only``), in the order in which it should be sent."""
        return [dispatch for stage in only or _ORDER for dispatch in self._fill(stage)]

    def ended(self, task: Task, lane: Lane, *, succeeded: bool) -> None:
        """``task`` left ``lane``. The limits' counts move here and in ``step`` only."""
        slot = self._by_name.get(lane.name)
        if slot is not None:
            slot.tasks.remove(task)
        if task.session is None:
            return
        if (task.kind == "denoise" and not succeeded) or (task.kind == "decode" and succeeded):
            self._undecoded.remove(task.session)
        if (task.kind == "decode" and not succeeded) or (task.kind == "write" and succeeded):
            self._unwritten.remove(task.session)

    def forget(self, session: Session) -> None:
        """``session`` ended: whatever it has between stages no longer counts against the limits."""
        self._undecoded.forget(session)
        self._unwritten.forget(session)

    def waiting(self, stage: Stage) -> int:
        """Ready tasks of ``stage`` that no lane has taken. The metrics endpoint asks from a thread of its own."""
        return sum(len(queue) for queue in list(self._ready[stage].values()))

    def in_flight(self, stage: Stage) -> int:
        return sum(len(slot.tasks) for slot in self._slots[stage])

    def busy(self, stage: Stage) -> int:
        """Lanes of ``stage`` that hold work."""
        return sum(bool(slot.tasks) for slot in self._slots[stage])

    def stranded(self) -> str:
        """In words, what a ready task needs that no lane of the fleet offers (any more)."""
        for queues in self._ready.values():
            for need, queue in queues.items():
                if any(not task.dead for _, _, task in queue) and not self._able(need):
                    stage, preset, degree = need
                    degrees = f" at sequence-parallel degree {degree}" if degree else ""
                    return f"{stage}{degrees}{f' with preset {preset}' if preset else ''}"
        return "any task"

    def _fill(self, stage: Stage) -> Iterable[Dispatch]:
        queues = self._ready[stage]
        while not self._held_back(stage):
            best: tuple[Rank, int, Need, _Slot] | None = None
            for need, queue in queues.items():
                while queue and queue[0][2].dead:
                    heapq.heappop(queue)
                if not queue or (best is not None and best[:2] < queue[0][:2]):
                    continue
                slot = self._free(need)
                if slot is not None:
                    best = (queue[0][0], queue[0][1], need, slot)
            if best is None:
                return
            _, _, task = heapq.heappop(queues[best[2]])
            best[3].tasks.append(task)
            self._count(task)
            yield Dispatch(task, best[3].lane)

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
        return (full or crowded) and any(self.in_flight(later) for later in ("denoise", "decode", "write"))

    def _able(self, need: Need) -> list[_Slot]:
        stage, preset, degree = need
        return [
            slot
            for slot in self._slots[stage]
            if slot.lane.preset in (None, preset) and degree in (None, slot.lane.sp_degree)
        ]

    def _free(self, need: Need) -> _Slot | None:
        free = [slot for slot in self._able(need) if len(slot.tasks) < slot.lane.depth]
        return min(free, key=lambda slot: (len(slot.tasks), slot.number), default=None)

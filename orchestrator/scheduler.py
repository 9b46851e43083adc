"""The scheduler: ready tasks and lanes in, dispatches out.

It knows no clock, no Ray and no asyncio: callers push ready tasks, report what ended, and call ``step``. A decision
costs O(log n) in ready tasks. Whose turn it is, ``fairness`` knows; which lane, ``pools``; what limits count,
``credits``. Invariants: no limit is exceeded; no lane idles while a task it may run is ready and no limit forbids it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from gamecraft_core.base.messages import STAGES, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.census import Census
from orchestrator.credits import Credits
from orchestrator.fairness import Claim, Queue, Turns
from orchestrator.limits import Limits
from orchestrator.policy import BATCH
from orchestrator.pools import SERIAL, Fleet, Room, Slot, offer
from orchestrator.ports import Lane
from orchestrator.tasks import Need, Session, Task

#: Stages nearest the output first: they free what the others fill.
_ORDER: tuple[Stage, ...] = tuple(reversed(STAGES))

#: More orders than any lane takes.
_ALL = 1 << 30


class Dispatch(NamedTuple):
    """``task`` goes to ``lane`` now."""

    task: Task
    lane: Lane


class _Line:
    """One stage: its ready tasks by need, and how many orders are out."""

    __slots__ = ("in_flight", "queues", "room", "serial", "stage", "turns")

    def __init__(self, stage: Stage, limits: Limits, census: Census, room: Room) -> None:
        self.stage = stage
        self.room = room
        self.serial = stage in SERIAL
        self.turns = Turns(limits, census)
        self.queues: dict[Need, Queue] = {}
        self.in_flight = 0


class Scheduler:
    """Owns the ready queues, the lanes' loads and the counts that limits are about."""

    def __init__(self, limits: Limits, census: Census) -> None:
        self._limits = limits
        self.census = census
        self.fleet = Fleet()
        self._lines = {stage: _Line(stage, limits, census, self.fleet.room[stage]) for stage in STAGES}
        self._queues: dict[Need, Queue] = {}
        self._in_order = tuple(self._lines[stage] for stage in _ORDER)
        self.credits = Credits()
        self.parked = 0

    @property
    def bounds(self) -> dict[str, tuple[Callable[[], int], int]]:
        """What the limits bound, by name: how much there is of it, and how much there may be."""
        limits, credits = self._limits, self.credits
        return {
            "sessions": (lambda: self.census.sessions, limits.max_sessions),
            "undecoded_chunks": (lambda: credits.undecoded.total, limits.max_undecoded),
            "unwritten_chunks": (lambda: credits.unwritten.total, limits.max_unwritten),
            "payload_bytes": (lambda: self.census.payload_bytes, limits.max_payload_bytes),
        }

    def newcomer(self, spec: SessionSpec) -> float:
        """The virtual time at which ``spec`` starts among its tenant's sessions."""
        return self._lines["denoise"].turns.newcomer(spec.tenant)

    def park(self) -> None:
        """A task that had been dispatched waits for its store: it is neither ready nor in flight, and comes back."""
        self.parked += 1

    def unpark(self, task: Task) -> None:
        self.parked -= 1
        if not task.dead:
            self.push([task])

    def add_lane(self, lane: Lane) -> None:
        """``lane`` takes orders."""
        self.fleet.join(lane)

    def drain_lane(self, lane: Lane) -> bool:
        """``lane`` takes no more orders; True when it holds none and is out, else it is out once all have ended."""
        slot = self.fleet.of(lane)
        if slot is None:
            return True
        self.fleet.drain(slot)
        if not slot.tasks:
            self.fleet.leave(slot)
        return not slot.tasks

    def draining(self, lane: Lane) -> bool:
        slot = self.fleet.of(lane)
        return slot is not None and slot.draining

    def remove_lane(self, lane: Lane) -> list[Task] | None:
        """Take ``lane`` out; returns the tasks that it may have been running, or None when it was out already.

        What it held is reported by its callers as it fails.
        """
        slot = self.fleet.of(lane)
        if slot is None:
            return None
        self.fleet.leave(slot)
        self._lines[lane.stage].in_flight -= len(slot.tasks)
        return slot.tasks[:1] if lane.stage in SERIAL else list(slot.tasks)

    def push(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            queue = self._queues.get(task.need)
            if queue is None:
                line = self._lines[task.stage]
                queue = self._queues[task.need] = line.queues[task.need] = Queue(task.need, line.turns)
            queue.push(task)

    def step(self, only: tuple[Stage, ...] | None = None) -> list[Dispatch]:
        """Everything that may start now (of the stages ``only``), in the order in which it should be sent."""
        made: list[Dispatch] = []
        for line in self._in_order if only is None else [self._lines[stage] for stage in only]:
            if line.turns.waiting and line.room.orders:
                self._fill(line, made)
        return made

    def ended(self, task: Task, lane: Lane, *, succeeded: bool) -> bool:
        """``task`` left ``lane``; True when ``lane`` was draining and is out now.

        The limits' counts move here, in ``forget`` and in ``step`` only.
        """
        self.credits.ended(task, succeeded=succeeded)
        slot = self.fleet.of(lane)
        if slot is None:
            return False
        self._lines[lane.stage].in_flight -= 1
        slot.pool.gave_back(slot, task)
        if not slot.draining or slot.tasks:
            return False
        self.fleet.leave(slot)
        return True

    def forget(self, session: Session) -> None:
        """``session`` ended: whatever it has between stages no longer counts against the limits."""
        self.credits.forget(session)

    def has_lane(self, need: Need) -> bool:
        """Some lane of the fleet, full or not, can meet ``need``."""
        return self.fleet.offers(need)

    def waiting(self, stage: Stage) -> int:
        """Ready tasks of ``stage`` that no lane has taken. The metrics endpoint asks from a thread of its own."""
        return self._lines[stage].turns.waiting

    def ready(self, stage: Stage) -> Iterator[Task]:
        """Those of them that somebody still waits for."""
        return (task for queue in self._lines[stage].queues.values() for task in queue)

    def in_flight(self, stage: Stage) -> int:
        return self._lines[stage].in_flight

    def busy(self, stage: Stage) -> int:
        """Lanes of ``stage`` that hold work."""
        return sum(bool(slot.tasks) for slot in self.fleet if slot.lane.stage == stage)

    def leaving(self, stage: Stage) -> int:
        """Lanes of ``stage`` that are draining. The metrics endpoint asks from a thread of its own."""
        return sum(slot.draining and slot.lane.stage == stage for slot in list(self.fleet))

    def lanes(self, stage: Stage) -> int:
        """Lanes of ``stage``, the draining ones with them."""
        return sum(slot.lane.stage == stage for slot in self.fleet)

    def work(self, offered: Need) -> int:
        """Orders that lanes of that offer hold, or would be given if there were more of them."""
        held = sum(len(slot.tasks) for slot in self.fleet if offer(slot.lane) == offered and not slot.draining)
        if self.held_back(offered[0]):
            return held
        fitting = (queue for need, queue in self._lines[offered[0]].queues.items() if _fits(need, offered))
        return held + sum(1 for queue in fitting for _ in queue)

    def stranded(self) -> str:
        """In words, what a ready task needs that no lane of the fleet offers (any more); "" where all can be met."""
        for (stage, preset, degree), queue in self._queues.items():
            if any(queue) and not self.fleet.offers(queue.need):
                degrees = f" at sequence-parallel degree {degree}" if degree else ""
                return f"{stage}{degrees}{f' with preset {preset}' if preset else ''}"
        return ""

    def held_back(self, stage: Stage) -> bool:
        """A limit stops this stage. Something must still be moving downstream, or the run would never go on."""
        if stage == "decode":
            return self.credits.unwritten.total >= self._limits.max_unwritten
        if stage not in ("encode", "denoise"):
            return False
        full = self.census.payload_bytes >= self._limits.max_payload_bytes
        crowded = stage == "denoise" and self.credits.undecoded.total >= self._limits.max_undecoded
        return (full or crowded) and (self.parked > 0 or any(map(self._moves, self._in_order[:3])))

    def _moves(self, line: _Line) -> bool:
        """Orders of the stage are under way, or will be: they wait for a lane, a lost one's successor at worst."""
        return line.in_flight > 0 or (line.stage != "denoise" and line.turns.waiting > 0)

    def _fill(self, line: _Line, made: list[Dispatch]) -> None:
        """Dispatch what ``line`` can start.

        Where somebody with a better claim may turn up any time, a lane that works on one order at a time is not given
        another to wait behind it.
        """
        alone = line.serial and self.census.shared
        most = 1 if alone else _ALL
        room, turns = line.room, line.turns
        while turns.waiting and (room.idle if alone else room.orders) and not self.held_back(line.stage):
            found = self._next(line, most)
            if found is None:
                return
            queue, slot = found
            task = queue.pop()
            slot.pool.took(slot, task)
            line.in_flight += 1
            self.credits.dispatched(task)
            made.append(Dispatch(task, slot.lane))

    def _next(self, line: _Line, most: int) -> tuple[Queue, Slot] | None:
        """The queue with the best claim of those for whose first task some lane is free, and that lane."""
        best: tuple[Queue, Slot] | None = None
        claim: Claim = ()
        contested = len(line.queues) > 1
        for queue in line.queues.values():
            task = queue.head()
            if task is None:
                continue
            its = queue.claim() if contested else ()
            if best is not None and claim < its:
                continue
            session = task.session if line.stage == "denoise" else None
            last = session.lane if session is not None else None
            slot = self.fleet.find(queue.need, most, fastest=task.rank[0] < BATCH, last=last)
            if slot is not None:
                best, claim = (queue, slot), its
        return best


def _fits(need: Need, offered: Need) -> bool:
    return offered[1] in (None, need[1]) and need[2] in (None, offered[2])

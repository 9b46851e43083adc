"""Lanes, what each holds, and which of them takes a task. No queue and no limit in here.

Lanes that offer the same are one pool; finding the least loaded of a pool is O(1). Invariants: no lane holds more than
its depth; every lane is given a first order before any gets a second; a draining lane is given none.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from gamecraft_core.base.messages import STAGES, Stage
from orchestrator.ports import Lane, Offer
from orchestrator.tasks import Need, Task

#: Stages whose lanes work on one order at a time, in the order of arrival; in others all that they hold is under way.
SERIAL: tuple[Stage, ...] = ("text", "encode", "denoise")


class Room:
    """How much a stage can take: lanes that hold nothing, and orders that its lanes can still be given."""

    __slots__ = ("idle", "orders")

    def __init__(self) -> None:
        self.idle = 0
        self.orders = 0


class Slot:
    """A lane and what it holds."""

    __slots__ = ("bit", "depth", "draining", "index", "lane", "number", "pool", "tasks")

    def __init__(self, lane: Lane, number: int, pool: Pool, index: int) -> None:
        self.lane = lane
        self.number = number
        self.pool = pool
        self.index = index
        self.bit = 1 << index
        self.depth = lane.depth
        self.draining = False
        self.tasks: list[Task] = []


class Pool:
    """Interchangeable lanes. ``free[load]`` has the bits of those that hold ``load`` orders and may take one more."""

    __slots__ = ("free", "lanes", "room", "slots", "speed", "vacant")

    def __init__(self, speed: float, room: Room) -> None:
        self.speed = speed
        self.room = room
        self.lanes = 0
        self.slots: list[Slot | None] = []
        self.vacant: list[int] = []
        self.free: list[int] = []

    def best(self, most: int) -> Slot | None:
        """The least loaded lane, the first of equals; None when all hold their depth, or ``most``."""
        for mask in self.free if most >= len(self.free) else self.free[:most]:
            if mask:
                return self.slots[(mask & -mask).bit_length() - 1]
        return None

    def add(self, slot: Slot) -> None:
        """``slot``, which holds nothing, may be given orders."""
        self.lanes += 1
        self.free += [0] * (slot.depth - len(self.free))
        self.free[0] |= slot.bit
        self.room.idle += 1
        self.room.orders += slot.depth

    def close(self, slot: Slot) -> None:
        """``slot`` is given no more orders."""
        self.lanes -= 1
        load = len(slot.tasks)
        if load < slot.depth:
            self.free[load] ^= slot.bit
            self.room.orders -= slot.depth - load
            self.room.idle -= not load

    def took(self, slot: Slot, task: Task) -> None:
        load = len(slot.tasks)
        slot.tasks.append(task)
        self.free[load] ^= slot.bit
        if load + 1 < slot.depth:
            self.free[load + 1] |= slot.bit
        self.room.orders -= 1
        if not load:
            self.room.idle -= 1

    def gave_back(self, slot: Slot, task: Task) -> None:
        load = len(slot.tasks)
        slot.tasks.remove(task)
        if slot.draining:
            return
        if load < slot.depth:
            self.free[load] ^= slot.bit
        self.free[load - 1] |= slot.bit
        self.room.orders += 1
        if load == 1:
            self.room.idle += 1


class Fleet:
    """All lanes, by name and by what they offer."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._pools: dict[tuple[Stage, str | None, int, float], Pool] = {}
        self._able: dict[Need, list[Pool]] = {}
        self._joined = itertools.count()
        self.room = {stage: Room() for stage in STAGES}

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def join(self, lane: Lane) -> None:
        speed = float(lane.sp_degree) if lane.speed is None else lane.speed
        key = (lane.stage, lane.preset, lane.sp_degree, speed)
        if key not in self._pools:
            self._pools[key] = Pool(speed, self.room[lane.stage])
            self._able.clear()
        pool = self._pools[key]
        if not pool.vacant:
            pool.vacant.append(len(pool.slots))
            pool.slots.append(None)
        index = heapq.heappop(pool.vacant)
        slot = self._slots[lane.name] = pool.slots[index] = Slot(lane, next(self._joined), pool, index)
        pool.add(slot)

    def of(self, lane: Lane) -> Slot | None:
        """Where ``lane`` is; None once it is out, whatever has taken its name since."""
        slot = self._slots.get(lane.name)
        return slot if slot is not None and slot.lane is lane else None

    def drain(self, slot: Slot) -> None:
        """``slot`` is given no more orders."""
        if not slot.draining:
            slot.pool.close(slot)
            slot.draining = True

    def leave(self, slot: Slot) -> None:
        self.drain(slot)
        del self._slots[slot.lane.name]
        slot.pool.slots[slot.index] = None
        heapq.heappush(slot.pool.vacant, slot.index)

    def offers(self, need: Need) -> bool:
        """Some lane, full or not, takes orders that need ``need``."""
        return any(pool.lanes for pool in self._fit(need))

    def find(self, need: Need, most: int, *, fastest: bool, last: str | None) -> Slot | None:
        """The lane for a task: the least loaded, then for ``fastest`` the fastest, then lane ``last``, then the first.

        A lane that holds ``most`` orders counts as full.
        """
        pools = self._able.get(need) or self._fit(need)
        if len(pools) == 1:
            best = pools[0].best(most)
        else:
            free = [slot for pool in pools if (slot := pool.best(most)) is not None]
            best = min(free, key=_by_speed if fastest else _by_load, default=None)
        if last is None or best is None or best.lane.name == last:
            return best
        mine = self._slots.get(last)
        if mine is None or mine.pool not in pools or len(mine.tasks) != len(best.tasks) or mine.draining:
            return best
        slower = fastest and mine.pool.speed < best.pool.speed
        return best if slower or len(mine.tasks) >= mine.depth else mine

    def _fit(self, need: Need) -> list[Pool]:
        """Pools whose lanes can meet ``need``."""
        found = self._able.get(need)
        if found is None:
            stage, preset, degree = need
            found = self._able[need] = [
                pool
                for (pool_stage, pool_preset, pool_degree, _), pool in self._pools.items()
                if pool_stage == stage and pool_preset in (None, preset) and degree in (None, pool_degree)
            ]
        return found


def _by_load(slot: Slot) -> tuple[float, ...]:
    return len(slot.tasks), slot.number


def _by_speed(slot: Slot) -> tuple[float, ...]:
    return len(slot.tasks), -slot.pool.speed, slot.number


def offer(lane: Offer) -> Need:
    """What ``lane`` meets; equal for lanes of one kind."""
    return (lane.stage, lane.preset, lane.sp_degree)

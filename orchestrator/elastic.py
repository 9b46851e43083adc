"""Keeps the lanes of a run at what its work wants and its cluster allows: brings further ones, sends others away.

Every few seconds it looks. A lane on a node that is about to go takes no more orders, and what is missing because of
that is started elsewhere in the same moment. Otherwise ``demand`` decides. A lane that has left is given back, never
one that still holds an order. Lanes that are lost stay the healer's affair, whether they were there from the start or
not; they count as on their way. Nothing changes any more once the run has been asked to stop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from gamecraft_core.base.errors import FramelaneError, NoRoom, UsageError
from gamecraft_core.base.messages import Receipt
from gamecraft_core.base.spec import SessionSpec
from orchestrator.demand import Demand, Load, Pace
from orchestrator.engine import Engine
from orchestrator.limits import Limits
from orchestrator.pools import SERIAL, offer
from orchestrator.ports import Lane, LaneKind, Listener, Yard
from orchestrator.scheduler import Scheduler
from orchestrator.tasks import Need

log = logging.getLogger("framelane.elastic")


class _Supply:
    """One kind: what is wanted of it, and the lanes that are being started.

    ``arriving`` are names of started lanes that the engine has not taken up yet. ``failures`` counts attempts in a row;
    when it is ``closed`` there is no next one.
    """

    def __init__(self, kind: LaneKind, pace: Pace) -> None:
        self.kind = kind
        self.demand = Demand(kind.least, kind.most, pace, 1 if kind.stage in SERIAL else kind.depth)
        self.starting: list[asyncio.Task[None]] = []
        self.arriving: set[str] = set()
        self.failures = 0
        self.closed = False


class Elastic(Listener):
    """A listener, and a loop of its own ``beside`` the engine's."""

    def __init__(
        self, yard: Yard, scheduler: Scheduler, limits: Limits, pace: Pace, clock: Callable[[], float]
    ) -> None:
        self._yard = yard
        self._scheduler = scheduler
        self._limits = limits
        self._pace = pace
        self._clock = clock
        self._supplies = {offer(kind): _Supply(kind, pace) for kind in yard.kinds}
        self._asked: set[str] = set()
        self._supply_of: dict[str, _Supply] = {}
        self._running: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def beside(self, engine: Engine) -> AsyncIterator[None]:
        """Look after ``engine``'s lanes for as long as the block lasts; what is being started then is withdrawn."""
        self._roster = engine.roster
        looking = asyncio.create_task(self._keep_looking(engine))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            await self._withdraw_all()

    async def _keep_looking(self, engine: Engine) -> None:
        while not engine.stopping:
            try:
                await self._look()
            except Exception:
                log.exception("the lanes are left as they are")
            await asyncio.sleep(self._pace.look_seconds)

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        if supply := self._supply_of.get(receipt.lane):
            supply.demand.took(receipt.seconds)

    def lane_joined(self, lane: Lane, now: float) -> None:
        self._supply(lane).arriving.discard(lane.name)

    def lane_left(self, lane: Lane, now: float) -> None:
        self._asked.discard(lane.name)
        self._spawn(self._give_back(lane))

    def lane_back(self, lane: Lane, now: float) -> None:
        self._asked.discard(lane.name)

    def lane_given_up(self, lane: Lane, now: float) -> None:
        """It failed too often to be tried again under another name."""
        demand = self._supply(lane).demand
        demand.most -= 1
        demand.least = min(demand.least, demand.most)
        self._spawn(self._give_back(lane))

    def _supply(self, lane: Lane) -> _Supply:
        return self._supplies[offer(lane)]

    async def _look(self) -> None:
        leaving = await self._yard.leaving()
        now = self._clock()
        serving = self._serving()
        going = [lane for lanes in serving.values() for lane in lanes if lane.name in leaving]
        for lane in going:
            log.warning("its node is about to go: it takes no more orders", extra={"lane": lane.name})
            serving[offer(lane)].remove(lane)
        for offered, supply in self._supplies.items():
            self._adjust(supply, offered, serving[offered], now)
        for lane in going:  # what replaces them is expected by now
            self._drain(lane, noticed=True)

    def _serving(self) -> dict[Need, list[Lane]]:
        """The lanes that take orders, and go on to."""
        serving: dict[Need, list[Lane]] = {each: [] for each in self._supplies}
        for slot in self._scheduler.fleet:
            self._supply_of[slot.lane.name] = self._supply(slot.lane)
            if not slot.draining and slot.lane.name not in self._asked:
                serving[offer(slot.lane)].append(slot.lane)
        return serving

    def _adjust(self, supply: _Supply, offered: Need, serving: list[Lane], now: float) -> None:
        """One lane more or fewer; below the least, as many more as it takes."""
        ailing = [lane for lane in self._roster.ailing if offer(lane) == offered and lane.name not in self._asked]
        work = self._scheduler.work(offered)
        while True:
            coming = len(supply.starting) + len(supply.arriving) + len(ailing)
            change = supply.demand.change(Load(work, len(serving), coming), now)
            if change < 0:
                self._shrink(supply, ailing, serving)
            elif change > 0 and not supply.closed:
                log.info("one more %s: %d orders for %d lanes, %d coming", supply.kind.name, work, len(serving), coming)
                self._roster.expect()
                supply.starting.append(asyncio.create_task(self._start(supply)))
                if len(serving) + coming + 1 < supply.demand.least:
                    continue
            return

    def _shrink(self, supply: _Supply, ailing: list[Lane], serving: list[Lane]) -> None:
        """What does not serve yet goes first, then what holds least."""
        if supply.starting:
            log.info("one %s fewer: it is not waited for any more", supply.kind.name)
            supply.starting[-1].cancel()
        elif ailing:
            self._drain(ailing[-1])
        elif serving:
            held = {lane.name: self._held(lane) for lane in serving}
            least = min(held.values())
            lane = self._yard.first_to_go([lane for lane in serving if held[lane.name] == least])
            log.info("one %s fewer: it takes no more orders", supply.kind.name, extra={"lane": lane.name})
            self._drain(lane)

    def _held(self, lane: Lane) -> int:
        slot = self._scheduler.fleet.of(lane)
        return len(slot.tasks) if slot else 0

    def _drain(self, lane: Lane, *, noticed: bool = False) -> None:
        self._asked.add(lane.name)
        self._roster.drain(lane, noticed=noticed)

    async def _start(self, supply: _Supply) -> None:
        lane: Lane | None = None
        try:
            lane = await self._started(supply)
        except Exception:
            log.exception("the fleet broke while it started a further %s", supply.kind.name)
            supply.closed = True
        finally:
            supply.starting = [each for each in supply.starting if each is not asyncio.current_task()]
            if lane is None:
                self._roster.expect_no_more()
            else:
                supply.arriving.add(lane.name)
                self._roster.add(lane, expected=True)

    async def _started(self, supply: _Supply) -> Lane | None:
        """A further lane, after as many attempts as it takes; None where it is given up.

        While others serve, it waits for room for as long as it is wanted; everything else that fails has a budget.
        """
        while not supply.closed:
            try:
                lane = await self._yard.another(supply.kind.name)
            except FramelaneError as error:
                log.warning("a further %s did not start: %s", supply.kind.name, error)
                enough = len(self._serving()[offer(supply.kind)]) >= supply.demand.least
                supply.failures += not (isinstance(error, NoRoom) and enough)
                if isinstance(error, UsageError) or supply.failures > self._limits.max_rebuilds:
                    log.error("no further %s is started", supply.kind.name)
                    supply.closed = True
                else:
                    await asyncio.sleep(self._limits.backoff(max(1, supply.failures)))
            else:
                supply.failures = 0
                return lane
        return None

    async def _give_back(self, lane: Lane) -> None:
        try:
            await self._yard.give_back(lane)
        except FramelaneError as error:
            log.warning("it does not end: %s", error, extra={"lane": lane.name})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        running = asyncio.create_task(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _withdraw_all(self) -> None:
        starting = [each for supply in self._supplies.values() for each in supply.starting]
        for each in starting:
            each.cancel()
        await asyncio.gather(*starting, *self._running, return_exceptions=True)

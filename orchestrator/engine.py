"""The engine: one loop that carries the scheduler's dispatches to lanes and their answers back to the board.

receive -> settle -> admit -> step -> dispatch. It never polls; it waits on one queue of events. It awaits receipts
only: payloads pass through as references. The clock is an argument, so the same loop runs on Ray in real time and on
fake lanes under a virtual clock.

Which lanes there are is the roster's affair, what becomes of a task that went wrong that of ``recovery``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gamecraft_core.base.errors import Cancelled, FramelaneError, LaneLost, Poisoned
from gamecraft_core.base.logs import about
from gamecraft_core.base.messages import Receipt
from gamecraft_core.base.spec import Control, Priority, SessionSpec
from orchestrator.admission import Admissions, Refusal, Wait
from orchestrator.board import Board
from orchestrator.collecting import rare_collections
from orchestrator.limits import Limits
from orchestrator.ports import Keeper, Lane, Listener, Ref
from orchestrator.recovery import Recovery, RunAborted
from orchestrator.roster import Roster
from orchestrator.scheduler import Dispatch, Scheduler
from orchestrator.shard_book import Publication, ShardBook
from orchestrator.tasks import Session, Task
from orchestrator.tracing import Traces

log = logging.getLogger("framelane.engine")


@dataclass(frozen=True, slots=True)
class Settled:
    """A manifest row that needs no lane: refused by validation, or ended in an earlier start of this run."""

    row: int
    session_id: str
    committed: bool


class Engine:
    """Runs sessions from ``source`` over ``lanes`` until all are settled or ``stop`` is called."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        board: Board,
        scheduler: Scheduler,
        limits: Limits,
        shards: ShardBook | None,
        listeners: Sequence[Listener],
        clock: Callable[[], float],
        *,
        keeper: Keeper | None = None,
        staged: Mapping[str, tuple[str, ...]] | None = None,
        traces: Traces | None = None,
    ) -> None:
        """``keeper`` replaces lost lanes; ``staged`` gives sessions' durable chunks from an earlier start.

        ``traces`` is one of ``listeners``, and sees orders off.

        Without ``shards`` sessions are committed and not published.
        """
        self._board = board
        self.limits = limits
        self._shards = shards
        self._listeners = listeners
        self._traces = traces
        self._clock = clock
        self._staged = dict(staged or {})
        self._admissions = Admissions(limits, board.census)
        self._serving = False
        self._events: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self.roster = Roster(scheduler, keeper, limits, listeners, clock, self._events.put_nowait)
        self._recovery = Recovery(board, scheduler, limits, listeners, clock, self._events.put_nowait)
        self._running: set[asyncio.Task[None]] = set()
        self.stopped_at: float | None = None
        self._out_of_time = False
        self._in_flight = 0
        self._publishing = 0
        self.scheduler = scheduler
        for lane in lanes:
            scheduler.add_lane(lane)

    def stop(self) -> None:
        """Admit and denoise nothing more; while the grace period lasts, make durable what is denoised."""
        self.stopped_at = self.stopped_at or self._clock()
        asyncio.get_running_loop().call_later(self.limits.grace_seconds, self._events.put_nowait, self._run_out_of_time)
        self._events.put_nowait(lambda: None)  # only wakes the loop

    @property
    def stopping(self) -> bool:
        return self.stopped_at is not None

    @property
    def waiting(self) -> int:
        """Sessions that wait to be let in."""
        return len(self._admissions)

    def cancel(self, session_id: str) -> None:
        """Nobody wants the session any more: what it holds is let go, what lanes still answer for it is ignored."""
        self._events.put_nowait(partial(self._cancelled, session_id))

    def room(self, tenant: str, priority: Priority) -> Wait | Refusal | None:
        """What ``offer`` would answer to such a session."""
        return self._admissions.room(tenant, priority)

    def offer(self, spec: SessionSpec, staged: tuple[str, ...] = ()) -> Wait | Refusal | None:
        """``spec`` asks to come in. None: it is in; else it waits in the queue, or is refused, for the reason given.

        ``staged``: keys of its durable chunks. Call it on the loop that the engine runs on.
        """
        answer = self._admissions.offer(spec)
        if not isinstance(answer, Refusal):
            self._staged[spec.session_id] = staged
        if answer is None:
            self._take_in(spec)
            self._events.put_nowait(lambda: None)  # only wakes the loop
        return answer

    def extend(self, session_id: str, controls: Iterable[Control]) -> None:
        """An open session goes on with ``controls`` after those it has."""
        self._events.put_nowait(partial(self._extended, session_id, tuple(controls)))

    def finish(self, session_id: str) -> None:
        """No more controls come for an open session; it is committed when it has come to their end."""
        self._events.put_nowait(partial(self._finished, session_id))

    async def serve(self) -> bool:
        """Run the sessions that are offered until ``stop``; True when none was left under way. Raises RunAborted."""
        self._serving = True
        return await self.run(iter(()))

    async def run(self, source: Iterator[SessionSpec | Settled]) -> bool:
        """True when every row of ``source`` settled, False when stopped before. Raises RunAborted."""
        try:
            with rare_collections():
                finished = await self._loop(source)
        finally:
            await self.roster.close()
            await self._cancel_running()
        if not finished and not self.stopping:
            stranded = self.scheduler.stranded() or "any task"
            raise RunAborted(f"no lane is left for {stranded}", remedy="run the same command again")
        return finished

    async def _loop(self, source: Iterator[SessionSpec | Settled]) -> bool:
        """Until every row settled (True), or nothing can or shall move the run on."""
        exhausted = False
        while True:
            if not self.stopping:
                self._admit_waiting()
                exhausted = exhausted or self._admit(source)
            self._dispatch()
            if exhausted and not self._board.active and not self._publishing and not self._awaiting_offers:
                return True
            if not self._expecting() or self._out_of_time:
                return False
            (await self._events.get())()
            while not self._events.empty():
                self._events.get_nowait()()

    def _expecting(self) -> bool:
        """Something is still to happen that can move the run on."""
        if self._in_flight or self.scheduler.parked:
            return True
        if self._awaiting_offers and not self.scheduler.stranded():
            return True
        unsaved = self.scheduler.waiting("decode") + self.scheduler.waiting("write")
        return self.roster.expecting and (not self.stopping or unsaved > 0)

    @property
    def _awaiting_offers(self) -> bool:
        return self._serving and not self.stopping

    def _admit_waiting(self) -> None:
        while (spec := self._admissions.next()) is not None:
            self._take_in(spec)

    def _admit(self, source: Iterator[SessionSpec | Settled]) -> bool:
        """True when ``source`` has no more rows."""
        while len(self._board.active) < self.limits.max_sessions:
            item = next(source, None)
            if item is None:
                return True
            if isinstance(item, Settled):
                self._row_settled(item.row, item.session_id, None, committed=item.committed)
                continue
            self._take_in(item)
        return False

    def _take_in(self, spec: SessionSpec) -> None:
        now = self._clock()
        staged = self._staged.pop(spec.session_id, ())
        self.scheduler.push(self._board.admit(spec, self.scheduler.newcomer(spec), now, staged))
        for listener in self._listeners:
            listener.admitted(spec, now)

    def _dispatch(self) -> None:
        for dispatch in self.scheduler.step(("write", "decode") if self.stopping else None):
            self._in_flight += 1
            running = asyncio.create_task(self._carry(dispatch))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    async def _carry(self, dispatch: Dispatch) -> None:
        try:
            order, payloads = self._board.order(dispatch.task)
            if self._traces is None:
                receipt, ref = await dispatch.lane.run(order, payloads)
            else:
                receipt, ref = await self._traces.carried(dispatch.task, dispatch.lane, order, payloads)
            event = partial(self._succeeded, dispatch, receipt, ref)
        except FramelaneError as error:
            event = partial(self._failed, dispatch, error)
        except Exception as error:
            log.exception("the lane broke its port", extra={**dispatch.task.fields, "lane": dispatch.lane.name})
            event = partial(self._failed, dispatch, RunAborted(f"lane {dispatch.lane.name} broke: {error!r}"))
        self._events.put_nowait(event)

    def _succeeded(self, dispatch: Dispatch, receipt: Receipt, ref: Ref) -> None:
        self._in_flight -= 1
        task, lane, now = dispatch.task, dispatch.lane, self._clock()
        if self.scheduler.ended(task, lane, succeeded=True):
            self.roster.left(lane)
        self.roster.did_well(lane)
        superseded = task.dead
        self.scheduler.push(self._board.settle(task, receipt, ref, lane.sp_degree, now))
        spec = task.session.spec if task.session else None
        for listener in self._listeners:
            listener.settled(spec, receipt, task.ready_at, now)
        if task.kind == "publish":
            self._publishing -= 1
        elif task.kind in ("commit", "fail") and not superseded:
            self._session_settled(task, receipt, ref, now)
        elif task.kind in ("denoise", "decode") and spec is not None and not superseded:
            for listener in self._listeners:
                hear = listener.denoised if task.kind == "denoise" else listener.decoded
                hear(spec, task.index, ref, now)

    def _session_settled(self, task: Task, receipt: Receipt, ref: Ref, now: float) -> None:
        """A record of the session is durable: ours, or that of somebody who was faster."""
        assert task.session is not None
        spec, error = task.session.spec, task.session.error
        failure = receipt.facts.get("failure")
        if failure is None:
            error = None
        elif error is None:
            error = Poisoned(failure["reason"], field=failure["field"], remedy=failure["remedy"])
        ours = ref if task.kind == "commit" and error is None else None
        self._row_settled(spec.row, spec.session_id, ours, committed=error is None)
        self._over(spec, error, now)

    def _failed(self, dispatch: Dispatch, error: FramelaneError) -> None:
        self._in_flight -= 1
        task, lane = dispatch.task, dispatch.lane
        with about(**task.fields, lane=lane.name):
            if isinstance(error, LaneLost):
                self.roster.lost(lane, error)
            if self.scheduler.ended(task, lane, succeeded=False):
                self.roster.left(lane)
            self._recovery.meet(task, error)

    def _cancelled(self, session_id: str) -> None:
        waiting = self._admissions.withdraw(session_id)
        session = self._board.active.get(session_id)
        if waiting is not None:
            self._over(waiting, Cancelled("called off"), self._clock())
        elif session is not None and session.state == "active":
            self._ended_early(session, self._board.cancel(session, self._clock()))

    def _extended(self, session_id: str, controls: tuple[Control, ...]) -> None:
        if (session := self._board.active.get(session_id)) is not None:
            now = self._clock()
            self.scheduler.push(self._board.extend(session, controls, now))
            for listener in self._listeners:
                listener.asked(session.spec, len(controls), now)
        else:
            self._admissions.amend(session_id, controls=controls)

    def _finished(self, session_id: str) -> None:
        if (session := self._board.active.get(session_id)) is None:
            waiting = self._admissions.amend(session_id, finished=True)
            if waiting is not None and not waiting.controls:
                self._cancelled(session_id)
            return
        ready = self._board.finish(session, self._clock())
        if session.state == "cancelled":
            self._ended_early(session, ready)
        else:
            self.scheduler.push(ready)

    def _ended_early(self, session: Session, ready: Iterable[Task]) -> None:
        """``session`` was cancelled; what others can start because of it is ``ready``."""
        self.scheduler.forget(session)
        self.scheduler.push(ready)
        self._row_settled(session.spec.row, session.spec.session_id, None, committed=False)
        self._over(session.spec, Cancelled("called off"), self._clock())

    def _over(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self._admissions.left(spec.tenant)
        for listener in self._listeners:
            listener.finished(spec, error, now)

    def _run_out_of_time(self) -> None:
        self._out_of_time = True

    def _row_settled(self, row: int, session_id: str, ref: Ref | None, *, committed: bool) -> None:
        if self._shards is None:
            return
        publication = self._shards.committed(row, session_id, ref) if committed else self._shards.failed(row)
        if publication is not None:
            self._publish(publication)

    def _publish(self, publication: Publication) -> None:
        self._publishing += 1
        self.scheduler.push([publication.task(self._clock())])

    async def _cancel_running(self) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

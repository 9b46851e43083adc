"""The engine: one loop that carries the scheduler's dispatches to lanes and their answers back to the board.

receive -> settle -> admit -> step -> dispatch. It never polls and never sleeps; it waits on one queue. It awaits
receipts only: payloads pass through as references. The clock is an argument, so the same loop runs on Ray in real
time and on fake lanes under a virtual clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gamecraft_core.base.errors import BadInput, FramelaneError, LaneLost, Poisoned, StoreUnavailable
from gamecraft_core.base.messages import Receipt
from gamecraft_core.base.spec import SessionSpec
from orchestrator import policy
from orchestrator.board import Board
from orchestrator.limits import Limits
from orchestrator.ports import Lane, Listener, Ref
from orchestrator.scheduler import Dispatch, Scheduler
from orchestrator.shard_book import Publication, ShardBook
from orchestrator.tasks import Task

log = logging.getLogger("framelane.engine")


@dataclass(frozen=True, slots=True)
class Settled:
    """A manifest row that needs no lane: refused by validation, or ended in an earlier start of this run."""

    row: int
    session_id: str
    committed: bool


class RunAborted(FramelaneError):
    """The run cannot go on (no lane left for a stage, the store is away). Nothing committed is lost."""

    verdict = "retry"


@dataclass(frozen=True, slots=True)
class _Ended:
    dispatch: Dispatch
    receipt: Receipt | None
    ref: Ref
    error: FramelaneError | None


class Engine:
    """Runs sessions from ``source`` over ``lanes`` until all are settled or ``stop`` is called."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        board: Board,
        scheduler: Scheduler,
        limits: Limits,
        shards: ShardBook,
        listeners: Sequence[Listener],
        clock: Callable[[], float],
    ) -> None:
        self._board = board
        self._limits = limits
        self._shards = shards
        self._listeners = listeners
        self._clock = clock
        self._ended: asyncio.Queue[_Ended | None] = asyncio.Queue()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._in_flight = 0
        self._publishing = 0
        self.scheduler = scheduler
        for lane in lanes:
            scheduler.add_lane(lane)

    def stop(self) -> None:
        """Admit nothing and start no chunk any more; what runs finishes, what is complete is committed."""
        self._stopping = True
        self._ended.put_nowait(None)

    async def run(self, source: Iterator[SessionSpec | Settled]) -> bool:
        """True when every row of ``source`` settled, False when stopped before. Raises RunAborted."""
        exhausted = False
        try:
            while True:
                if not self._stopping:
                    exhausted = exhausted or self._admit(source)
                self._dispatch()
                if not self._in_flight:
                    break
                self._settle(await self._ended.get())
                while not self._ended.empty():
                    self._settle(self._ended.get_nowait())
        finally:
            await self._cancel_running()
        finished = exhausted and not self._board.active and not self._publishing
        if not finished and not self._stopping:
            raise RunAborted(f"no lane is left for {self.scheduler.stranded()}", remedy="run the same command again")
        return finished

    def _admit(self, source: Iterator[SessionSpec | Settled]) -> bool:
        while len(self._board.active) < self._limits.max_sessions:
            item = next(source, None)
            if item is None:
                return True
            if isinstance(item, Settled):
                self._row_settled(item.row, item.session_id, None, committed=item.committed)
                continue
            now = self._clock()
            self.scheduler.push(self._board.admit(item, self.scheduler.virtual_time.now, now))
            for listener in self._listeners:
                listener.admitted(item, now)
        return False

    def _dispatch(self) -> None:
        for dispatch in self.scheduler.step(("write",) if self._stopping else None):
            self._in_flight += 1
            running = asyncio.create_task(self._carry(dispatch))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    async def _carry(self, dispatch: Dispatch) -> None:
        try:
            order, payloads = self._board.order(dispatch.task)
            receipt, ref = await dispatch.lane.run(order, payloads)
            ended = _Ended(dispatch, receipt, ref, None)
        except FramelaneError as error:
            ended = _Ended(dispatch, None, None, error)
        except Exception as error:
            log.exception("lane %s broke its port", dispatch.lane.name)
            ended = _Ended(dispatch, None, None, RunAborted(f"lane {dispatch.lane.name} broke: {error!r}"))
        self._ended.put_nowait(ended)

    def _settle(self, ended: _Ended | None) -> None:
        if ended is None:
            return
        self._in_flight -= 1
        task, lane, now = ended.dispatch.task, ended.dispatch.lane, self._clock()
        self.scheduler.ended(task, lane, succeeded=ended.error is None)
        if ended.error is not None:
            self._failed(task, lane, ended.error, now)
            return
        assert ended.receipt is not None
        spec = task.session.spec if task.session else None
        self.scheduler.push(self._board.settle(task, ended.receipt, ended.ref, lane.sp_degree, now))
        for listener in self._listeners:
            listener.settled(spec, ended.receipt, task.ready_at, now)
        if task.kind == "publish":
            self._publishing -= 1
        elif spec is not None and task.kind in ("commit", "fail"):
            committed = task.kind == "commit"
            self._row_settled(spec.row, spec.session_id, ended.ref, committed=committed)
            if committed:
                self._finished(task, None, now)

    def _failed(self, task: Task, lane: Lane, error: FramelaneError, now: float) -> None:
        if isinstance(error, LaneLost) and self.scheduler.remove_lane(lane):
            log.warning("lane %s lost: %s", lane.name, error)
            for listener in self._listeners:
                listener.lane_lost(lane, error, now)
        if task.dead:
            return
        if isinstance(error, (BadInput, Poisoned)) and task.session is not None and task.kind != "fail":
            self._fail_session(task, error, now)
            return
        task.attempts += 1
        if task.attempts < self._limits.max_attempts and error.verdict in ("retry", "wait"):
            self.scheduler.push([task])
            return
        if isinstance(error, LaneLost) and task.session is not None and task.kind != "fail":
            lost = Poisoned(f"{task.attempts} lanes were lost while they ran this chunk", remedy="see the lanes' logs")
            self._fail_session(task, lost, now)
            return
        raise RunAborted(f"{task.kind} of {_whose(task)} failed: {error}", remedy=_remedy(error)) from error

    def _fail_session(self, task: Task, error: FramelaneError, now: float) -> None:
        assert task.session is not None
        self.scheduler.forget(task.session)
        self.scheduler.push(self._board.fail(task, error, now))
        self._finished(task, error, now)

    def _finished(self, task: Task, error: FramelaneError | None, now: float) -> None:
        assert task.session is not None
        for listener in self._listeners:
            listener.finished(task.session.spec, error, now)

    def _row_settled(self, row: int, session_id: str, ref: Ref | None, *, committed: bool) -> None:
        publication = self._shards.committed(row, session_id, ref) if committed else self._shards.failed(row)
        if publication is not None:
            self._publish(publication)

    def _publish(self, publication: Publication) -> None:
        self._publishing += 1
        self.scheduler.push(
            [
                Task(
                    kind="publish",
                    need=("write", None, None),
                    rank=policy.FIRST,
                    ready_at=self._clock(),
                    order=publication.order,
                    payloads=publication.payloads,
                )
            ]
        )

    async def _cancel_running(self) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _whose(task: Task) -> str:
    return task.session.spec.session_id if task.session else "a shard"


def _remedy(error: FramelaneError) -> str:
    if error.remedy:
        return error.remedy
    return "run the same command again: it resumes" if isinstance(error, StoreUnavailable) else ""

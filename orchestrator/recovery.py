"""What becomes of a task that ended in an error, by the error's verdict.

A bad or harmful input fails its session alone; a lost lane's order goes elsewhere; an absent store is waited for; a
session whose payloads are gone goes back to what is durable of it. What none of these mends ends the run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from gamecraft_core.base.errors import (
    BadInput,
    FramelaneError,
    LaneLost,
    OutOfMemory,
    Poisoned,
    StateLost,
    StoreUnavailable,
)
from gamecraft_core.base.messages import PublishOrder
from orchestrator.board import Board
from orchestrator.limits import Limits
from orchestrator.ports import Listener
from orchestrator.scheduler import Scheduler
from orchestrator.tasks import Task

log = logging.getLogger("framelane.engine")


class RunAborted(FramelaneError):
    """The run cannot go on (no lane left for a stage, the store is away). Nothing committed is lost."""

    verdict = "retry"


class Recovery:
    """Meets errors for the engine. ``post`` hands something to its loop, which does it soon."""

    def __init__(
        self,
        board: Board,
        scheduler: Scheduler,
        limits: Limits,
        listeners: Sequence[Listener],
        clock: Callable[[], float],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._board = board
        self._scheduler = scheduler
        self._limits = limits
        self._listeners = listeners
        self._clock = clock
        self._post = post

    def meet(self, task: Task, error: FramelaneError) -> None:
        """``task``, which no lane holds any more, ended in ``error``. Raises RunAborted."""
        blamed, task.suspect = task.suspect, False
        if task.dead:
            return
        match error:
            case BadInput() | Poisoned() if task.is_sessions:
                self._fail_session(task, error)
            case StateLost():
                self._rewind(task, error)
            case StoreUnavailable():
                self._wait_for_store(task, error)
            case LaneLost():
                self._try_elsewhere(task, error, blamed=blamed)
            case _:
                raise _aborted(task, error) from error

    def _try_elsewhere(self, task: Task, error: LaneLost, *, blamed: bool) -> None:
        """Only the order that was running is charged with the loss of its lane; what waited behind it is blameless."""
        starved = isinstance(error, OutOfMemory)
        what = "ran out of memory" if starved else "were lost"
        task.losses[what] = task.losses.get(what, 0) + blamed
        if task.losses[what] < (self._limits.max_out_of_memory if starved else self._limits.max_attempts):
            log.info("%s is tried again", task.kind)
            self._scheduler.push([task])
        elif task.is_sessions:
            reason = f"{task.losses[what]} lanes {what} while they ran {task.kind} of chunk {task.index}: {error}"
            self._fail_session(task, Poisoned(reason, remedy="see the lanes' logs"))
        else:
            raise _aborted(task, error) from error

    def _rewind(self, task: Task, error: StateLost) -> None:
        if isinstance(task.order, PublishOrder) and task.order.fresh:
            task.order, task.payloads = task.order.from_store(), ()
            self._scheduler.push([task])
        elif not task.is_sessions or task.session is None:
            raise _aborted(task, error) from error
        elif task.session.rewinds >= self._limits.max_rewinds:
            self._fail_session(task, Poisoned(f"its state was lost again and again: {error}"))
        else:
            log.warning("the session goes back to what is durable of it: %s", error)
            self._scheduler.forget(task.session)
            self._scheduler.push(self._board.rewind(task, self._clock()))

    def _wait_for_store(self, task: Task, error: StoreUnavailable) -> None:
        """Try again later. What cannot be stored holds back what comes before it: it still counts as unwritten."""
        now = self._clock()
        task.away_since = task.away_since if task.away_since is not None else now
        task.retries += 1
        if now - task.away_since >= self._limits.max_outage_seconds:
            if task.kind != "encode":  # reading one session's input is that session's affair
                raise _aborted(task, error) from error
            self._fail_session(task, Poisoned(f"its input could not be read in time: {error}"))
            return
        pause = self._limits.backoff(task.retries)
        log.warning("%s waits %.1f s for the store: %s", task.kind, pause, error)
        for listener in self._listeners:
            listener.store_away(task.stage, error, pause, now)
        self._scheduler.park()
        unpark = partial(self._scheduler.unpark, task)
        asyncio.get_running_loop().call_later(pause, self._post, unpark)

    def _fail_session(self, task: Task, error: FramelaneError) -> None:
        assert task.session is not None
        log.warning("the session fails: %s", error)
        self._scheduler.forget(task.session)
        self._scheduler.push(self._board.fail(task, error, self._clock()))


def _aborted(task: Task, error: FramelaneError) -> RunAborted:
    return RunAborted(f"{task.kind} of {_whose(task)} failed: {error}", remedy=_remedy(error))


def _whose(task: Task) -> str:
    return task.session.spec.session_id if task.session else "a shard"


def _remedy(error: FramelaneError) -> str:
    if error.remedy:
        return error.remedy
    return "run the same command again: it resumes" if isinstance(error, StoreUnavailable) else ""

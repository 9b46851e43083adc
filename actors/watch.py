"""Waiting for an actor's answer while watching that it gets on: progress counts, not how long it takes.

An actor is hung when its pulse has not moved, or was not to be had, for ``stall_seconds`` on end of watching. Time in
which this process itself stood still does not count. An answer that comes soon costs no call: the pulse is asked for
only now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from ray.exceptions import RayError

from actors.role import WATCH, Pulse
from gamecraft_core.base.errors import LaneHung

Answer = TypeVar("Answer")

#: Looks in the time that makes a stall, and the most seconds between two.
_LOOKS = 5
_MOST_S = 10.0


async def watched(
    answer: Awaitable[Answer], actor: Any, stall_seconds: float, who: str, *, moving: bool = True
) -> Answer:
    """``answer``, a call of ``actor``; LaneHung where the actor, called ``who``, hangs.

    With ``moving`` False it is enough that it answers: who loads weights does not tell how far it is.
    """
    waiting = asyncio.ensure_future(answer)
    watch = _Watch(actor, stall_seconds, who, moving)
    try:
        while not await watch.look(waiting):
            pass
        return waiting.result()
    finally:
        waiting.cancel()
        watch.close()


async def together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """All results in order; with the first error the rest is cancelled, awaited, and the error raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


class _Watch:
    """What was seen of one actor's pulse in the course of one wait."""

    def __init__(self, actor: Any, stall_seconds: float, who: str, moving: bool) -> None:
        self._actor = actor
        self._stall_s = stall_seconds
        self._every_s = min(stall_seconds / _LOOKS, _MOST_S)
        self._who = who
        self._moving = moving
        self._asked: asyncio.Future[Pulse] | None = None
        self._last: Pulse | None = None
        self._silent = False
        self._still_s = 0.0

    async def look(self, waiting: asyncio.Future[Any]) -> bool:
        """Wait for ``waiting``, but not for long: True when it is there. Raises LaneHung."""
        began = time.monotonic()
        await asyncio.wait(
            {waiting, self._asked} if self._asked else {waiting},
            timeout=self._every_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if waiting.done():
            return True
        # Whoever stood still for long (a stopped process, a closed laptop) has not watched.
        self._still_s += min(time.monotonic() - began, 2 * self._every_s)
        if self._asked is None:
            self._asked = asyncio.ensure_future(_pulse(self._actor))
        elif self._asked.done():
            self._heard(self._asked)
        else:
            self._silent = True
        if self._still_s > self._stall_s:
            raise LaneHung(f"{self._who} {self._state()} for {self._stall_s:g} s")
        return False

    def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()

    def _heard(self, asked: asyncio.Future[Pulse]) -> None:
        self._asked = None
        if isinstance(asked.exception(), RayError):
            return  # it is dead, which the answer itself will say
        pulse, self._silent = asked.result(), False
        if not self._moving or self._last is None or pulse.moves != self._last.moves:
            self._still_s = 0.0
        self._last = pulse

    def _state(self) -> str:
        last = f"last seen: {self._last.doing}" if self._last else "never seen at work"
        return f"{'has not answered' if self._silent else 'has not moved'} ({last})"


async def _pulse(actor: Any) -> Pulse:
    pulse: Pulse = await actor.pulse.options(concurrency_group=WATCH).remote()
    return pulse

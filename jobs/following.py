"""A submitted job followed from outside: its log as it grows, its end, and a stop in order.

Invariant: every character of the log is shown once, however often the connection breaks. The job's own last line
ends the wait, since Ray tells of a stopped job's end much later.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gamecraft_core.base.errors import FramelaneError
from jobs.exits import Exit
from jobs.submitted import status_in

#: How long the cluster may not answer before the job is left to itself, and pauses between tries.
_PATIENCE_S, _PAUSE_S = 120.0, 1.0
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Followed:
    """How a job ended: ``status`` by its own last line, None where it did not come to say one; ``state`` is Ray's."""

    status: int | None
    state: str = ""
    message: str = ""
    stopping: bool = False

    @property
    def lost(self) -> bool:
        """The job's process went without having ended, and nobody asked for that."""
        return self.status is None and self.state != "STOPPED"

    @property
    def exit_status(self) -> int:
        if self.status is not None:
            return self.status
        return Exit.FAILED if self.lost else Exit.STOPPED


class Follower:
    """Follows the submission ``name`` of a ``JobSubmissionClient``. Made within the loop that runs it."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name = client, name
        self._shown = 0
        self._line = ""
        self._status: int | None = None
        self._stops = 0
        self._left = asyncio.Event()
        self._heard = time.monotonic()

    async def run(self, *, stop: bool = False) -> Followed:
        """Show the log until the job has ended; FramelaneError where the cluster is away for too long, or we leave."""
        with self._signals():
            if stop:
                self._signalled()
            return await self._followed()

    async def _followed(self) -> Followed:
        while True:
            try:
                if await self._tailed():
                    return Followed(self._status, stopping=self._stops > 0)
                info = await asyncio.to_thread(self._client.get_job_info, self._name)
                if info.status.is_terminal():
                    return Followed(None, info.status.value, _first_line(info.message), self._stops > 0)
                self._heard = time.monotonic()
            except failures() as error:
                if time.monotonic() - self._heard > _PATIENCE_S:
                    raise FramelaneError(
                        f"the cluster does not answer: {_first_line(str(error))}",
                        remedy=f"the job may go on; ask again with --follow {self._name}",
                    ) from error
            await asyncio.sleep(_PAUSE_S)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Hear what would end us; what heard it before hears it again afterwards."""
        loop, before = asyncio.get_running_loop(), {number: signal.getsignal(number) for number in _NUMBERS}
        for number in _NUMBERS:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in _NUMBERS:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    async def _tailed(self) -> bool:
        """Show what is new in the log, to its end; True once the job has said its last line."""
        tail = asyncio.create_task(self._tail())
        left = asyncio.create_task(self._left.wait())
        done, _ = await asyncio.wait({tail, left}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if tail in done:
            await tail
            return self._status is not None
        tail.cancel()
        await asyncio.wait({tail})
        raise FramelaneError(
            f"{self._name} is left to itself, stopping", remedy=f"see it end with --follow {self._name}"
        )

    async def _tail(self) -> None:
        skip = self._shown
        async for text in self._client.tail_job_logs(self._name):
            new, skip = text[skip:], max(0, skip - len(text))
            self._shown += len(new)
            self._heard = time.monotonic()
            if self._show(new):
                return

    def _show(self, text: str) -> bool:
        """Print whole lines, but not the last one, which is for us; True when that has come."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._status = status_in(line)
            if self._status is not None:
                return True
            print(line, flush=True)
        return False

    def _signalled(self) -> None:
        self._stops += 1
        if self._stops == 1:
            print(f"stopping {self._name}; once more leaves it alone", file=sys.stderr)
            self._stopper = asyncio.create_task(self._stop())
        else:
            self._left.set()

    async def _stop(self) -> None:
        """Ask until the cluster has heard it."""
        while True:
            try:
                await asyncio.to_thread(self._client.stop_job, self._name)
                return
            except failures():
                await asyncio.sleep(_PAUSE_S)


def failures() -> tuple[type[Exception], ...]:
    """What the job API's client raises where the cluster does not answer, or not as it should."""
    import aiohttp
    from ray.exceptions import RayError

    return OSError, RuntimeError, aiohttp.ClientError, RayError


async def follow(client: Any, name: str, *, stop: bool = False) -> Followed:
    """Follow ``name`` to its end, after asking it to ``stop`` if so."""
    return await Follower(client, name).run(stop=stop)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]

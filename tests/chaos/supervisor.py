"""The job as an operator runs it: a child process, started again with the same command until it has finished."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from jobs.exits import Exit
from tests.chaos.nodes import BOUND

#: A stopped or failed job goes on from where it was; one that was refused never will.
_RESUMABLE = (Exit.FAILED, Exit.STOPPED)
_FINISHED = (Exit.ALL_COMMITTED, Exit.SOME_ROWS_FAILED)
_PAUSE_S = 0.2
_MOST_STARTS = 200
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Said:
    """A line that a driver logged, and when."""

    at: float
    line: str


@dataclass(slots=True)
class Supervisor:
    """Keeps ``command`` going. Times are of ``time.time()``; ``ends`` holds (pid, begin, end, status) of each start."""

    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    pid: int | None = None
    said: list[Said] = field(default_factory=list)
    ends: list[tuple[int, float, float, int]] = field(default_factory=list)
    #: Set while a driver has a fleet that serves.
    serving: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        """The status with which the job finished at last. Raises RuntimeError where it cannot."""
        for _ in range(_MOST_STARTS):
            status = await self._once()
            if status in _FINISHED:
                return status
            if status >= 0 and status not in _RESUMABLE:
                last = "\n".join(said.line for said in self.said[-5:])
                raise RuntimeError(f"the driver ended with {status}, which no supervisor answers by a restart:\n{last}")
            await asyncio.sleep(_PAUSE_S)
        raise RuntimeError(f"the job did not finish in {_MOST_STARTS} starts")

    async def _once(self) -> int:
        began = time.time()
        process = await asyncio.create_subprocess_exec(
            *BOUND,
            sys.executable,
            "-m",
            *self.command,
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST_LINE,
            start_new_session=True,
        )
        self.pid = process.pid
        try:
            await self._listen(process)
            return await process.wait()
        finally:
            self.pid = None
            self.serving.clear()
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            self.ends.append((process.pid, began, time.time(), await process.wait()))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with self.log.open("a") as log:
            log.write(f"--- start {len(self.ends) + 1}, process {process.pid}\n")
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                self.said.append(Said(time.time(), line))
                print(line, file=log, flush=True)
                if "metrics at" in line:
                    self.serving.set()

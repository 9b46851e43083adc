"""How signals end a program: the first asks it to finish, the second calls the work off, a third ends the process.

A signal that raises wherever the main thread happens to be can leave a lock taken or a callback half done, and one
that the kernel gives to another thread may not reach a main thread that waits. So Python's handlers do nothing here:
a thread reads the wakeup descriptor and leaves word with the event loop. Once the work is called off, the same thread
sees to it that the process goes, whatever holds it up; all that is durable survives that.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import select
import signal
import threading
from collections.abc import Callable

from jobs.exits import Exit
from orchestrator.engine import Engine

log = logging.getLogger("framelane.run")

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
#: How long work that is called off may take to end, leaving the cluster included.
PATIENCE_S = 15.0


class Stopper:
    """Ends the task that makes it, in order, when SIGTERM or SIGINT comes.

    While the fleet starts there is nothing to finish, so the work is cancelled; once there is an engine it is stopped,
    after whatever comes ``first``.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.engine: Engine | None = None
        self.first: Callable[[], None] = lambda: None
        self._work, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        self._patience_s = patience_s
        self._count = 0
        self._told = self._before = -1

    @property
    def called_off(self) -> bool:
        """A second signal came: nobody waits for what could still be finished."""
        return self._count > 1

    def listen(self) -> None:
        """Take the signals over, on the main thread. To be called after Ray has connected: it installs its own."""
        came, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        for number in _NUMBERS:
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._watch, args=(came,), name="signals", daemon=True).start()

    def hand_back(self) -> None:
        """From now on a signal interrupts; but work that was called off stays watched to the end of the process."""
        if self.called_off:
            return
        for number in _NUMBERS:
            signal.signal(number, signal.default_int_handler)
        signal.set_wakeup_fd(self._before)
        os.close(self._told)

    def _watch(self, came: int) -> None:
        """Hear what comes, until ``hand_back`` or the process's end."""
        while select.select([came], [], [], self._patience_s if self.called_off else None)[0]:
            number = os.read(came, 1)
            if not number:
                os.close(came)
                return
            if number[0] in _NUMBERS:
                self._heard(signal.Signals(number[0]).name)
        faulthandler.dump_traceback()  # where it is held up
        os._exit(Exit.STOPPED)

    def _heard(self, name: str) -> None:
        self._count += 1
        if self._count == 1:
            log.warning("%s: finishing what runs; a second one ends at once", name)
            self._loop.call_soon_threadsafe(self._stop)
        elif self._count == 2:
            log.warning("%s: ending at once", name)
            self._loop.call_soon_threadsafe(self._call_off)
        else:
            os._exit(Exit.STOPPED)

    def _stop(self) -> None:
        if self.engine is None:
            self._call_off()
        else:
            self.first()
            self.engine.stop()

    def _call_off(self) -> None:
        if self._work is not None:
            self._work.cancel()

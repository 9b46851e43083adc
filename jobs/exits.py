"""Exit codes of the jobs, and how an error reaches the person who caused it: one line, no traceback."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

from gamecraft_core.base.errors import BadInput, FramelaneError, UsageError
from gamecraft_core.base.logs import last_word


class Exit(IntEnum):
    """What a job's exit status means."""

    ALL_COMMITTED = 0
    FAILED = 1
    REFUSED = 2
    SOME_ROWS_FAILED = 3
    STOPPED = 4


def guarded(job: Callable[[], int]) -> int:
    """Run ``job``; an error with a verdict becomes a line on stderr and an exit status, SIGTERM an interruption."""
    try:
        with _interruptible():
            return job()
    except (UsageError, BadInput) as error:
        last_word(f"refused: {error}")
        return Exit.REFUSED
    except FramelaneError as error:
        last_word(f"failed: {error}")
        return Exit.FAILED
    except KeyboardInterrupt:
        last_word("interrupted; what is committed stays, and the same command resumes")
        return Exit.STOPPED


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as SIGINT does. Only the main thread can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

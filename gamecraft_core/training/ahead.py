"""Data made ahead in other processes, handed over in the order of its numbers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """``make(0)``, ``make(1)``, ... from ``first`` on; at most ``most`` wait. ``make`` must pickle.

    With no processes the items are made by the caller, when asked for.
    """

    def __init__(self, make: Callable[[int], Item], first: int, *, processes: int = 1, most: int = 16) -> None:
        self._make, self._next, self._most = make, first, most
        self._waiting: deque[Future[Item]] = deque()
        self._pool: ProcessPoolExecutor | None = None
        if processes:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_quietly)

    def take(self) -> Item:
        """The next item."""
        if self._pool is None:
            self._next += 1
            return self._make(self._next - 1)
        while len(self._waiting) < self._most:
            self._waiting.append(self._pool.submit(self._make, self._next))
            self._next += 1
        return self._waiting.popleft().result()

    def __enter__(self) -> Ahead[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | Any
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _quietly() -> None:
    """A process beside the training: one thread, signals are the parent's business, and it ends with the parent."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its pool to end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""What every actor has in common: a name, a stopwatch for its receipts, ping and drain.

An actor class here is a plain class; ``actors.fleet`` turns it into a Ray actor. It imports torch and
loads its models in its first call (``warm`` or ``join``), so that whoever only starts a fleet stays light and what a
lane could not start for comes back as the error it is. Methods are synchronous and run one at a time: when the
answer to ``drain`` arrives, everything ordered before it is done.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from gamecraft_core.base.errors import FramelaneError, LaneLost
from gamecraft_core.base.messages import Order, Receipt, Stage

Run = TypeVar("Run", bound=Callable[..., Any])


class Role:
    """Base of the actors: ``stage`` and ``lane`` name it in every receipt."""

    def __init__(self, stage: Stage, lane: str) -> None:
        self._stage: Stage = stage
        self._lane = lane
        self._draining = False

    def ping(self) -> dict[str, Any]:
        """Alive, and who: process id and memory in bytes."""
        return {"lane": self._lane, "pid": os.getpid(), "memory_bytes": memory_bytes()}

    def drain(self) -> None:
        """Refuse what comes from now on."""
        self._draining = True

    def carry(self, order: Order, work: Callable[[], tuple[Any, dict[str, Any]]]) -> tuple[Receipt, Any]:
        """Do ``work`` (payload, facts) under the stopwatch."""
        self.admit()
        started = time.time()
        payload, facts = work()
        return self.receipt(order, started, facts), payload

    def admit(self) -> None:
        if self._draining:
            raise LaneLost(f"{self._lane} is draining")

    def receipt(self, order: Order, started: float, facts: dict[str, Any]) -> Receipt:
        """The answer to ``order``, which began at ``started`` (Unix seconds) and ends now."""
        return Receipt(
            stage=self._stage,
            session_id=order.session_id,
            index=getattr(order, "index", 0),
            lane=self._lane,
            started=started,
            ended=time.time(),
            facts={"memory_bytes": memory_bytes(), **facts},
        )


def answering(run: Run) -> Run:
    """Let an actor's ``run`` answer (error, None) where it raises one of ours: Ray would print a traceback for it."""

    @wraps(run)
    def answer(*arguments: Any) -> Any:
        try:
            return run(*arguments)
        except FramelaneError as error:
            return error, None

    return cast(Run, answer)


def memory_bytes() -> int:
    """What this process holds of its GPU; without one, its resident memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.memory_reserved())
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

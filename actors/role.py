"""What every actor has in common: a name, a pulse, a stopwatch for its receipts, drain and serve.

An actor class here is a plain class; ``actors.placement`` turns it into a Ray actor. It imports torch and
loads its models in its first call (``warm`` or ``join``), so that whoever only starts a fleet stays light and what a
lane could not start for comes back as the error it is. Methods are synchronous and run one at a time: when the
answer to ``serve`` arrives, everything ordered before it is done. ``pulse``, ``presence``, ``progress``
and ``preview`` are asked for in a concurrency group of their own, WATCH, and answer while an order runs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from actors.memory import memory
from gamecraft_core.base import logs
from gamecraft_core.base.errors import FramelaneError, LaneLost, OutOfMemory
from gamecraft_core.base.messages import FloatArray, Order, Receipt, Stage
from gamecraft_core.base.telemetry import Telemetry
from gamecraft_core.base.tracing import Span, Spans, open_spans

Run = TypeVar("Run", bound=Callable[..., Any])

log = logging.getLogger("framelane.actor")

_SPAN: ContextVar[Span | None] = ContextVar("framelane-span", default=None)

#: The concurrency group of calls that are answered beside a running order.
WATCH = "watch"


@dataclass(frozen=True, slots=True)
class Pulse:
    """How often something was done so far, and what it was last. Only a change of ``moves`` means anything."""

    moves: int
    doing: str


@dataclass(frozen=True, slots=True)
class Presence:
    """Who answers: its process, the generation it serves in (0: not ready), for which Ray job, and what it has done.

    ``begun`` and ``ended`` count orders; ``facts`` is what records need to know of a denoise rank.
    """

    lane: str
    pid: int
    generation: int
    owner: str
    begun: int
    ended: int
    facts: dict[str, Any]


class Role:
    """Base of the actors: ``stage`` and ``lane`` name it in every receipt."""

    def __init__(self, stage: Stage, lane: str) -> None:
        self._stage: Stage = stage
        self._rank: int | None = None
        self._spans: Spans | None = None
        self._lane = lane
        self._draining = False
        self._generation, self._owner, self._facts = 0, "", dict[str, Any]()
        self._counting = threading.Lock()
        self._moves = self._begun = self._ended = 0
        self._doing = "nothing yet"
        self._step: tuple[str, int, int, int] | None = None

    def ping(self) -> dict[str, Any]:
        """Alive, and who: process id and memory."""
        return {"lane": self._lane, "pid": os.getpid(), **memory()}

    def tell(self, telemetry: Telemetry) -> None:
        """Alive; from now on tell in this form what happens, in Ray's log files of this process.

        Of a group the first rank makes spans: they go in step, and a span each would say the same again.
        """
        logs.setup(telemetry.logs, run=telemetry.run, lane=self._lane, stage=self._stage, rank=self._rank)
        if self._spans is not None:  # of the control plane before, where this one takes the lane over
            self._spans.close()
        self._spans = None if self._rank else open_spans(telemetry, self._lane)

    def flush(self) -> None:
        """Send the spans that have ended; asked for in WATCH."""
        if self._spans is not None:
            self._spans.flush()

    def span_of(self, order: Order) -> Span | None:
        """The span in which this process carries ``order`` out; None where traces are off."""
        if self._spans is None or not order.traceparent:
            return None
        about = {**fields(order), "stage": self._stage, "lane": self._lane}
        return self._spans.start(f"{self._stage} lane", order.traceparent, **about)

    def pulse(self) -> Pulse:
        return Pulse(self._moves, self._doing)

    def presence(self) -> Presence:
        return Presence(
            self._lane, os.getpid(), self._generation, self._owner, self._begun, self._ended, dict(self._facts)
        )

    def progress(self) -> tuple[str, int, int, int] | None:
        """Of a role that works in steps: session, chunk, step, steps of the order under way; asked for in WATCH."""
        return self._step

    def learn_preview(self) -> None:
        """Of a role that can show latents: from now on it will. Asked for where people watch."""

    def preview(self, latents: FloatArray) -> tuple[bytes, int] | None:
        """A chunk's latent frames beside each other as a JPEG, and how many; None of who cannot. Asked for in WATCH."""
        return None

    def drain(self) -> None:
        """Refuse what comes from now on; asked for in WATCH, what waits for its turn too."""
        self._draining = True

    def serve(self, generation: int, owner: str, facts: Mapping[str, Any]) -> None:
        """Ready, from now on for Ray job ``owner``; refuse orders no more."""
        log.info("serves, generation %d", generation)
        self._generation, self._owner, self._facts = generation, owner, dict(facts)
        self._draining = False

    def moved(self, doing: str) -> None:
        """Something was done: whoever watches sees that this process gets on."""
        with self._counting:
            self._moves += 1
            self._doing = doing

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
            facts={**memory(), **facts},
        )

    def began(self, order: Order) -> None:
        with self._counting:
            self._begun += 1
        self.moved(f"began {called(order)}")

    def left(self, order: Order) -> None:
        """``order`` is over, well or not."""
        self._step = None
        with self._counting:
            self._ended += 1
        self.moved(f"ended {called(order)}")


def called(order: Order) -> str:
    """``order`` in a few words."""
    kind = type(order).__name__.removesuffix("Order").lower()
    return f"{kind} {order.session_id} {getattr(order, 'index', '')}".rstrip()


def answering(run: Run) -> Run:
    """Count the orders of an actor's ``run``, and let it answer (error, None) where it raises one of ours.

    Ray would print a traceback for it. Memory that ran out is one of ours, too.
    """

    @wraps(run)
    def answer(role: Role, order: Order, *payloads: Any) -> Any:
        role.began(order)
        span = role.span_of(order)
        try:
            with logs.about(**fields(order)):
                return _told(run, role, order, payloads) if span is None else _traced(span, run, role, order, payloads)
        finally:
            role.left(order)

    return cast(Run, answer)


def _told(run: Callable[..., Any], role: Role, order: Order, payloads: tuple[Any, ...]) -> Any:
    try:
        return run(role, order, *payloads)
    except FramelaneError as error:
        log.warning("%s", error)
        return error, None
    except Exception as error:
        if is_out_of_memory(error):
            log.warning("out of memory: %s", error)
            return OutOfMemory(f"{called(order)}: {error}"), None
        log.exception("it met an error of its own")
        raise


def _traced(span: Span, run: Callable[..., Any], role: Role, order: Order, payloads: tuple[Any, ...]) -> Any:
    """The same within ``span``, which ``current`` names meanwhile."""
    token = _SPAN.set(span)
    error: BaseException | None = None
    try:
        answer = _told(run, role, order, payloads)
        error = answer[0] if isinstance(answer[0], FramelaneError) else None
        return answer
    except BaseException as raised:
        error = raised
        raise
    finally:
        _SPAN.reset(token)
        span.end(error=error)


def current() -> Span | None:
    """The span of the order that this thread carries out, if there is one."""
    return _SPAN.get()


def fields(order: Order) -> dict[str, Any]:
    """What log lines say of ``order``: see ``gamecraft_core.base.logs``."""
    return {"session": order.session_id, "chunk": getattr(order, "index", None)}


def is_out_of_memory(error: BaseException | None) -> bool:
    """Python's and NumPy's error, torch's of a device, and the nameless one of torch's CPU allocator."""
    if isinstance(error, MemoryError):
        return True
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )

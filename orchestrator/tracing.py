"""A trace for each session: the session, its chunks, and a span for every order that a lane gets.

The order takes its span's place along, so that the lane's own spans, in another process, become its children. A span
of an order begins when it is sent: what it waited before is ``queue_seconds``, and a gap in the chunk's span.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import Order, Receipt
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.tracing import Span, Spans
from orchestrator.ports import Lane, Listener, Ref
from orchestrator.tasks import Task


@dataclass(slots=True)
class _Open:
    """A session under way, and its chunks that are not durable yet."""

    span: Span
    chunks: dict[int, Span] = field(default_factory=dict)


class Traces(Listener):
    """Tells ``spans`` what happens. ``parent_of`` a session's id is the ``traceparent`` that it was asked for with."""

    def __init__(self, spans: Spans, parent_of: Callable[[str], str] = lambda _: "") -> None:
        self._spans = spans
        self._parent_of = parent_of
        self._sessions: dict[str, _Open] = {}

    def admitted(self, spec: SessionSpec, now: float) -> None:
        about = {"session": spec.session_id, "tenant": spec.tenant, "preset": spec.preset, "row": spec.row or None}
        span = self._spans.start("session", self._parent_of(spec.session_id), now, **about)
        self._sessions[spec.session_id] = _Open(span)

    async def carried(self, task: Task, lane: Lane, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        """What ``lane`` makes of ``order``, within a span."""
        span = self._sent(task, lane, time.time())
        failed: BaseException | None = None
        try:
            receipt, ref = await lane.run(replace(order, traceparent=span.traceparent), payloads)
            span.set(queue_seconds=max(0.0, receipt.started - task.ready_at))
            return receipt, ref
        except BaseException as error:
            failed = error
            raise
        finally:
            span.end(error=failed)

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        there = self._sessions.get(receipt.session_id)
        if there is not None and "record" in receipt.facts and receipt.index in there.chunks:
            there.chunks.pop(receipt.index).end()

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self._end(spec.session_id, error)

    def close(self) -> None:
        """End what is still under way, and send it all."""
        for session_id in list(self._sessions):
            self._end(session_id, None, stopped=True)
        self._spans.close()

    def _end(self, session_id: str, error: FramelaneError | None, **attributes: bool) -> None:
        there = self._sessions.pop(session_id, None)
        if there is None:
            return
        for span in there.chunks.values():
            span.end(error=error)
        there.span.set(**attributes)
        there.span.end(error=error)

    def _sent(self, task: Task, lane: Lane, now: float) -> Span:
        about = {**task.fields, "lane": lane.name, "preset": lane.preset, "sp_degree": lane.sp_degree}
        there = self._sessions.get(task.session.spec.session_id) if task.session is not None else None
        if there is None:
            return self._spans.start(task.kind, "", now, **about)
        parent = there.span
        if task.kind in ("denoise", "decode", "write"):
            chunk = there.chunks.get(task.index)
            if chunk is None:
                chunk = parent.child("chunk", task.ready_at, session=task.fields["session"], chunk=task.index)
                there.chunks[task.index] = chunk
            parent = chunk
        return parent.child(task.kind, now, **about)

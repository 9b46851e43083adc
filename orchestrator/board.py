"""The board: every session's tasks, and what becomes ready when one settles.

Invariants: a session's chunks are denoised in order, one at a time; decode(n) and denoise(n+1) become ready by the
same event; a payload is held only while a task may still need it; a session ends exactly once, by its commit or by
its recorded failure. No clock and no lane in here: times come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import FailOrder, Order, Provenance, Receipt
from gamecraft_core.base.spec import SessionSpec
from orchestrator import orders, policy
from orchestrator.limits import Limits
from orchestrator.ports import Ref
from orchestrator.prompts import Prompts
from orchestrator.tasks import Chunk, Kind, Need, Session, Task

ProvenanceOf = Callable[[SessionSpec, int], Provenance]


class Board:
    """Owns all sessions under way."""

    def __init__(
        self, limits: Limits, provenance: ProvenanceOf, *, keep_latents: bool = False, allow_sp_moves: bool = False
    ) -> None:
        self._limits = limits
        self._provenance = provenance
        self._keep_latents = keep_latents
        self._allow_sp_moves = allow_sp_moves
        self._admitted = 0
        self._prompts = Prompts(limits.max_kept_prompts)
        self.active: dict[str, Session] = {}
        self.payload_bytes = 0

    def admit(self, spec: SessionSpec, base: float, now: float) -> list[Task]:
        """Take a session in: its start is ready to be encoded at once, and its prompt unless another's is the same."""
        self._admitted += 1
        session = Session(spec=spec, number=self._admitted, base=base)
        self.active[spec.session_id] = session
        kinds: tuple[Kind, ...] = ("text", "encode") if self._prompts.ask(session) else ("encode",)
        return [self._task(kind, session, 0, now) for kind in kinds]

    def order(self, task: Task) -> tuple[Order, tuple[Ref, ...]]:
        """The order for ``task`` and the payloads that travel with it."""
        if task.order is not None:
            return task.order, task.payloads
        session = task.session
        assert session is not None
        match task.kind:
            case "text":
                return orders.text(session.spec), ()
            case "encode":
                return orders.encode(session.spec), ()
            case "denoise":
                return orders.denoise(session.spec, task.index), (session.text, session.history)
            case "decode":
                return orders.decode(session.spec, task.index), (session.latents[task.index],)
            case "write":
                latents = (session.latents[task.index],) if self._keep_latents else ()
                return orders.write(session.spec, task.index, self._keep_latents), (
                    session.fragments[task.index],
                    *latents,
                )
            case _:
                provenance = self._provenance(session.spec, session.sp_degree or 1)
                return orders.commit(session, provenance), ()

    def settle(self, task: Task, receipt: Receipt, ref: Ref, sp_degree: int, now: float) -> list[Task]:
        """Record what ``task`` brought and return the tasks that are ready because of it."""
        session = task.session
        if session is None:
            return []
        if task.kind == "text":
            return self._encoded(session, receipt, ref, max(0.0, receipt.started - task.ready_at), now)
        if session.state == "done":
            return []
        if task.kind == "fail":
            self._end(session)
            return []
        if session.state == "failed":
            return []
        queued = max(0.0, receipt.started - task.ready_at)
        match task.kind:
            case "encode":
                session.history, session.encode_receipt = ref, receipt
                session.start_queue_seconds += queued
                self._hold(session, "history", receipt)
            case "denoise":
                return self._denoised(session, task.index, receipt, ref, sp_degree, queued, now)
            case "decode":
                return self._decoded(session, task.index, receipt, ref, queued, now)
            case "write":
                return self._written(session, task.index, receipt, queued, now)
            case "commit":
                self._end(session)
        return self._release_denoise(session, now)

    def fail(self, task: Task, error: FramelaneError, now: float) -> list[Task]:
        """End the task's session with ``error``; its failure is made durable like a result is."""
        session = task.session
        assert session is not None
        if session.state != "active":
            return []
        session.state = "failed"
        self._drop_payloads(session)
        spec = session.spec
        order = FailOrder(
            session_id=spec.session_id,
            row=spec.row,
            field=error.field,
            stage=task.kind,
            reason=error.message,
            remedy=error.remedy,
        )
        failure = Task(
            kind="fail",
            need=("write", None, None),
            rank=policy.rank(session, task.index),
            ready_at=now,
            session=session,
            order=order,
        )
        heir = self._prompts.give_up(session)
        return [failure, self._task("text", heir, 0, now)] if heir else [failure]

    def _encoded(self, session: Session, receipt: Receipt, ref: Ref, queued: float, now: float) -> list[Task]:
        session.text_receipt = receipt
        session.start_queue_seconds += queued
        return [task for each in self._prompts.encoded(session, ref) for task in self._release_denoise(each, now)]

    def _denoised(
        self, session: Session, index: int, receipt: Receipt, ref: Ref, sp_degree: int, queued: float, now: float
    ) -> list[Task]:
        session.denoised += 1
        if index - 1 not in session.latents:
            self._let_go(session, "history" if index == 0 else f"latents{index - 1}")
        session.history = ref
        session.latents[index] = ref
        if session.sp_degree is None or self._allow_sp_moves:
            session.sp_degree = sp_degree
        chunk = self._chunk(session, index, receipt, queued)
        chunk.sp_degree = sp_degree
        self._hold(session, f"latents{index}", receipt)
        return [self._task("decode", session, index, now), *self._release_denoise(session, now)]

    def _decoded(
        self, session: Session, index: int, receipt: Receipt, ref: Ref, queued: float, now: float
    ) -> list[Task]:
        session.undecoded -= 1
        session.fragments[index] = ref
        self._chunk(session, index, receipt, queued)
        self._hold(session, f"fragment{index}", receipt)
        if not self._keep_latents:
            self._drop_latents(session, index)
        return [self._task("write", session, index, now), *self._release_denoise(session, now)]

    def _written(self, session: Session, index: int, receipt: Receipt, queued: float, now: float) -> list[Task]:
        session.written += 1
        self._chunk(session, index, receipt, queued)
        del session.fragments[index]
        self._let_go(session, f"fragment{index}")
        self._drop_latents(session, index)
        if session.written < session.spec.num_chunks:
            return []
        return [self._task("commit", session, index, now)]

    def _release_denoise(self, session: Session, now: float) -> list[Task]:
        if not session.ready_to_denoise or session.undecoded >= self._limits.max_undecoded_per_session:
            return []
        session.released += 1
        session.undecoded += 1
        return [self._task("denoise", session, session.denoised, now)]

    def _task(self, kind: Kind, session: Session, index: int, now: float) -> Task:
        need: Need = ("write", None, None)
        if kind in ("text", "encode", "denoise", "decode"):
            pinned = session.sp_degree if kind == "denoise" and not self._allow_sp_moves else None
            need = (kind, session.spec.preset, pinned)
        return Task(kind=kind, need=need, rank=policy.rank(session, index), ready_at=now, session=session, index=index)

    @staticmethod
    def _chunk(session: Session, index: int, receipt: Receipt, queued: float) -> Chunk:
        chunk = session.chunks.setdefault(index, Chunk())
        chunk.receipts[receipt.stage] = receipt
        chunk.queue_seconds += queued
        return chunk

    def _drop_latents(self, session: Session, index: int) -> None:
        """The decoder is done with them; as long as they are the session's history they are still held."""
        ref = session.latents.pop(index, None)
        if ref is not None and ref is not session.history:
            self._let_go(session, f"latents{index}")

    def _hold(self, session: Session, name: str, receipt: Receipt) -> None:
        size = int(receipt.facts.get("payload_bytes", 0))
        session.bytes_held[name] = size
        self.payload_bytes += size

    def _let_go(self, session: Session, name: str) -> None:
        self.payload_bytes -= session.bytes_held.pop(name, 0)

    def _drop_payloads(self, session: Session) -> None:
        session.text = session.history = None
        session.latents.clear()
        session.fragments.clear()
        self.payload_bytes -= sum(session.bytes_held.values())
        session.bytes_held.clear()

    def _end(self, session: Session) -> None:
        session.state = "done"
        self._drop_payloads(session)
        del self.active[session.spec.session_id]

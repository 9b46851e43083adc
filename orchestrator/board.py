"""The board: every session's tasks, and what becomes ready when one settles.

Invariants: a session's chunks are denoised in order, one at a time; decode(n) and denoise(n+1) become ready by the
same event; a payload is held only while a task may still need it; every chunk but a session's last is durable before
its commit; a session ends exactly once, by its commit or by its recorded failure. No clock and no lane in here: times
come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import ChunkRecord, FailOrder, Order, Provenance, Receipt
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

    def admit(self, spec: SessionSpec, base: float, now: float, staged: tuple[str, ...] = ()) -> list[Task]:
        """Take a session in: its start is ready to be encoded at once, and its prompt unless another's is the same.

        With ``staged`` keys of an earlier start it goes on from the chunks that they hold.
        """
        return self._start(spec, base, now, staged, rewinds=0)

    def order(self, task: Task) -> tuple[Order, tuple[Ref, ...]]:
        """The order for ``task`` and the payloads that travel with it."""
        if task.order is not None:
            return task.order, task.payloads
        session, index = task.session, task.index
        assert session is not None
        spec = session.spec
        match task.kind:
            case "text":
                return orders.text(spec), ()
            case "encode":
                return orders.encode(spec), ()
            case "denoise":
                return orders.denoise(spec, index), (session.text, session.history)
            case "decode":
                return orders.decode(spec, index), (session.latents[index],)
        provenance = self._provenance(spec, session.sp_degree or 1)
        match task.kind:
            case "restore":
                return orders.restore(session, provenance), ()
            case "write":
                payloads = (session.fragments[index], session.latents[index])
                return orders.write(session, index, provenance, self._keep_latents), payloads
            case _:
                latents = (session.latents[index],) if self._keep_latents else ()
                order = orders.commit(session, provenance, self._keep_latents)
                return order, (session.fragments[index], *latents)

    def settle(self, task: Task, receipt: Receipt, ref: Ref, sp_degree: int, now: float) -> list[Task]:
        """Record what ``task`` brought and return the tasks that are ready because of it."""
        session = task.session
        if session is None:
            return []
        queued = max(0.0, receipt.started - task.ready_at)
        if task.kind == "text":
            return self._encoded(session, receipt, ref, queued, now)
        if session.state in ("done", "rewound"):
            return []
        if task.kind in ("commit", "fail"):
            self._end(session)
            return []
        if session.state == "failed":
            return []
        match task.kind:
            case "encode":
                session.history, session.encode_receipt, session.started = ref, receipt, True
                session.start_queue_seconds += queued
                self._hold(session, "history", receipt)
                return self._release_denoise(session, now)
            case "restore":
                return self._restored(session, receipt, ref, now)
            case "denoise":
                return self._denoised(session, task.index, receipt, ref, sp_degree, queued, now)
            case "decode":
                return self._decoded(session, task.index, receipt, ref, queued, now)
            case _:
                return self._written(session, task.index, receipt, now)

    def fail(self, task: Task, error: FramelaneError, now: float) -> list[Task]:
        """End the task's session with ``error``; its failure is made durable like a result is."""
        session = task.session
        assert session is not None
        if session.state != "active":
            return []
        session.state, session.error = "failed", error
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
        return [failure, *self._pass_prompt_on(session, now)]

    def rewind(self, task: Task, now: float) -> list[Task]:
        """Something that the task's session held is gone: begin it again from what is durable of it."""
        old = task.session
        assert old is not None
        if old.state != "active":
            return []
        old.state = "rewound"
        self._drop_payloads(old)
        self._prompts.forget(old)
        durable = {chunk.record.staged_key for chunk in old.chunks.values() if chunk.record}
        keys = tuple(sorted({*old.staged, *durable}))
        return [*self._pass_prompt_on(old, now), *self._start(old.spec, old.base, now, keys, old.rewinds + 1)]

    def _start(self, spec: SessionSpec, base: float, now: float, staged: tuple[str, ...], rewinds: int) -> list[Task]:
        self._admitted += 1
        session = Session(spec=spec, number=self._admitted, base=base, staged=staged, rewinds=rewinds)
        self.active[spec.session_id] = session
        begin: Kind = "restore" if staged else "encode"
        kinds: tuple[Kind, ...] = ("text", begin) if self._prompts.ask(session) else (begin,)
        return [self._task(kind, session, 0, now) for kind in kinds]

    def _pass_prompt_on(self, session: Session, now: float) -> list[Task]:
        heir = self._prompts.give_up(session)
        return [self._task("text", heir, 0, now)] if heir else []

    def _restored(self, session: Session, receipt: Receipt, ref: Ref, now: float) -> list[Task]:
        records = [ChunkRecord(**fields) for fields in receipt.facts["chunks"]]
        if not records:
            return [self._task("encode", session, 0, now)]
        for record in records:
            session.chunks[record.index] = Chunk(sp_degree=record.sp_degree, record=record)
        count = len(records)
        session.released = session.denoised = session.written = count
        session.base -= count  # its next chunk is as urgent as a newcomer's first
        session.sp_degree = records[-1].sp_degree
        session.history, session.started = ref, True
        self._hold(session, f"latents{count - 1}", receipt)
        return self._release_denoise(session, now)

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
        if index < session.last:
            ready = [self._task("write", session, index, now)]
        else:
            if not self._keep_latents:
                self._drop_latents(session, index)
            ready = self._complete(session, now)
        return [*ready, *self._release_denoise(session, now)]

    def _written(self, session: Session, index: int, receipt: Receipt, now: float) -> list[Task]:
        session.written += 1
        record = ChunkRecord(**receipt.facts["record"])
        session.chunks[index].record = replace(record, timings={**record.timings, "write": receipt.seconds})
        del session.fragments[index]
        self._let_go(session, f"fragment{index}")
        self._drop_latents(session, index)
        return self._complete(session, now)

    def _complete(self, session: Session, now: float) -> list[Task]:
        """The commit, once every chunk but the last is durable and the last one's fragment is there."""
        if session.written < session.last or session.last not in session.fragments:
            return []
        return [self._task("commit", session, session.last, now)]

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
        """Decoder and writer are done with them; as long as they are the session's history they are still held."""
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

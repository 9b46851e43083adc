"""The board: every session's tasks, and what becomes ready when one settles.

Invariants: a session's chunks are denoised in order, one at a time; decode(n) and denoise(n+1) become ready by the
same event; a payload is held only while a task may still need it; every chunk but a session's last (of an open one
every chunk) is durable before its commit; a session ends exactly once, by its commit or by its recorded failure. No
clock and no lane in here: times come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import ChunkRecord, Order, Provenance, Receipt
from gamecraft_core.base.spec import Control, SessionSpec
from orchestrator import orders, playback
from orchestrator.census import Census
from orchestrator.limits import Limits
from orchestrator.policy import Fair, Policy
from orchestrator.ports import Ref
from orchestrator.prompts import Prompts
from orchestrator.tasks import Chunk, Kind, Need, Session, Task

_WRITE: Need = ("write", None, None)

#: The encoded start, among what a session holds: what comes before the latents of chunk 0.
_START = -1

ProvenanceOf = Callable[[SessionSpec, int], Provenance]


class Board:
    """Owns all sessions under way."""

    def __init__(
        self,
        limits: Limits,
        provenance: ProvenanceOf,
        *,
        keep_latents: bool = False,
        allow_sp_moves: bool = False,
        policy: Policy | None = None,
    ) -> None:
        """``policy`` ranks tasks; the product's by default."""
        self._limits = limits
        self._provenance = provenance
        self._keep_latents = keep_latents
        self._allow_sp_moves = allow_sp_moves
        self._policy = policy or Fair()
        self._admitted = 0
        self._prompts = Prompts(limits.max_kept_prompts)
        self.active: dict[str, Session] = {}
        self.census = Census()

    def admit(self, spec: SessionSpec, base: float, now: float, staged: tuple[str, ...] = ()) -> list[Task]:
        """Take a session in: its start is ready to be encoded at once, and its prompt unless another's is the same.

        With ``staged`` keys of an earlier start it goes on from the chunks that they hold.
        """
        self.census.came(spec)
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
                return orders.denoise(session, index), (session.text, session.history, *session.kept)
            case "decode":
                return orders.decode(session, index), (session.latents[index], *session.kept)
        provenance = self._provenance(spec, session.sp_degree or 1)
        match task.kind:
            case "restore":
                return orders.restore(session, provenance), ()
            case "write":
                payloads = (session.fragments[index], session.latents[index])
                return orders.write(session, index, provenance, self._keep_latents), payloads
            case _:
                order = orders.commit(session, provenance, self._keep_latents)
                if spec.open:
                    return order, ()
                latents = (session.latents[index],) if self._keep_latents else ()
                return order, (session.fragments[index], *latents)

    def settle(self, task: Task, receipt: Receipt, ref: Ref, sp_degree: int, now: float) -> list[Task]:
        """Record what ``task`` brought and return the tasks that are ready because of it."""
        session = task.session
        if session is None:
            return []
        queued = receipt.started - task.ready_at if receipt.started > task.ready_at else 0.0
        if task.kind == "text":
            return self._encoded(session, receipt, ref, queued, now)
        if session.state in ("done", "rewound", "cancelled"):
            return []
        if task.kind in ("commit", "fail"):
            self._end(session)
            return []
        if session.state == "failed":
            return []
        spec = session.spec
        match task.kind:
            case "denoise":
                return self._denoised(session, task.index, receipt, ref, sp_degree, queued, now)
            case "decode":
                return self._decoded(session, task.index, receipt, ref, queued, now)
            case "write":
                return self._written(session, task.index, receipt, now)
            case "restore":
                return self._restored(session, receipt, ref, now)
            case _:
                if spec.keeps_start:
                    session.start = ref
                else:
                    session.history = ref
                session.encode_receipt, session.started = receipt, True
                session.start_queue_seconds += queued
                self._hold(session, _START, receipt)
                return self._release_denoise(session, now)

    def fail(self, task: Task, error: FramelaneError, now: float) -> list[Task]:
        """End the task's session with ``error``; its failure is made durable like a result is."""
        session = task.session
        assert session is not None
        if session.state != "active":
            return []
        session.state, session.error = "failed", error
        self._drop_payloads(session)
        failure = Task(
            kind="fail",
            need=_WRITE,
            rank=self._policy.rank(session, task.index, now),
            ready_at=now,
            session=session,
            order=orders.fail(session.spec, task.kind, error),
        )
        return [failure, *self._pass_prompt_on(session, now)]

    def cancel(self, session: Session, now: float) -> list[Task]:
        """Nobody wants ``session`` any more, whatever it has come to; its tasks are dead, and nothing is recorded.

        A commit that is under way may still become durable.
        """
        if session.state != "active":
            return []
        self._end(session, "cancelled")
        return self._pass_prompt_on(session, now)

    def extend(self, session: Session, controls: Iterable[Control], now: float) -> list[Task]:
        """``session``, which is open, goes on with ``controls`` when it has come to the end of those before."""
        if not session.open or session.state != "active":
            return []
        if session.denoised > session.last:
            playback.asked(session, now)
        session.controls += tuple(controls)
        session.last = len(session.controls) - 1
        return self._release_denoise(session, now)

    def finish(self, session: Session, now: float) -> list[Task]:
        """No more controls come for ``session``: it is committed when all its chunks are there.

        One that never had a control leaves nothing behind, as if it were cancelled.
        """
        if not session.open or session.state != "active":
            return []
        session.open = False
        return self._complete(session, now) if session.controls else self.cancel(session, now)

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
        passed_on = self._pass_prompt_on(old, now)
        ready = self._start(old.spec, old.base, now, keys, old.rewinds + 1)
        self.active[old.spec.session_id].resume(old)
        return [*passed_on, *ready]

    def _start(self, spec: SessionSpec, base: float, now: float, staged: tuple[str, ...], rewinds: int) -> list[Task]:
        self._admitted += 1
        due = now + self._limits.first_chunk_seconds
        session = Session(spec=spec, number=self._admitted, base=base, staged=staged, rewinds=rewinds, due=due)
        self.active[spec.session_id] = session
        session.started = spec.start.kind == "none" and not staged
        kinds: list[Kind] = ["text"] if self._prompts.ask(session) else []
        if not session.started:
            kinds.append("restore" if staged else "encode")
        tasks = [self._task(kind, session, 0, now) for kind in kinds]
        return [*tasks, *self._release_denoise(session, now)]

    def _pass_prompt_on(self, session: Session, now: float) -> list[Task]:
        heir = self._prompts.give_up(session)
        return [self._task("text", heir, 0, now)] if heir else []

    def _restored(self, session: Session, receipt: Receipt, ref: Ref, now: float) -> list[Task]:
        records = [ChunkRecord(**fields) for fields in receipt.facts["chunks"]]
        for record in records:
            session.chunks[record.index] = Chunk(sp_degree=record.sp_degree, record=record)
        if count := len(records):
            session.released = session.denoised = session.written = count
            session.base -= count  # its next chunk is as urgent as a newcomer's first
            session.sp_degree = records[-1].sp_degree
            session.history = ref
            self._hold(session, count - 1, receipt)
            if complete := self._complete(session, now):
                return complete
        begins = not count or session.spec.keeps_start
        encode = [self._task("encode", session, 0, now)] if begins and session.spec.start.kind != "none" else []
        session.started = not encode
        return [*encode, *self._release_denoise(session, now)]

    def _encoded(self, session: Session, receipt: Receipt, ref: Ref, queued: float, now: float) -> list[Task]:
        session.text_receipt = receipt
        session.start_queue_seconds += queued
        return [task for each in self._prompts.encoded(session, ref) for task in self._release_denoise(each, now)]

    def _denoised(
        self, session: Session, index: int, receipt: Receipt, ref: Ref, sp_degree: int, queued: float, now: float
    ) -> list[Task]:
        session.denoised += 1
        if index - 1 not in session.latents and not (index == 0 and session.spec.keeps_start):
            self._let_go(session, index - 1)
        session.history = ref
        session.latents[index] = ref
        session.lane = receipt.lane
        if session.sp_degree is None or self._moves(session):
            session.sp_degree = sp_degree
        chunk = self._chunk(session, index, receipt, queued)
        chunk.sp_degree = sp_degree
        self._hold(session, index, receipt)
        ready = self._release_denoise(session, now)
        ready.append(self._task("decode", session, index, now))
        return ready

    def _decoded(
        self, session: Session, index: int, receipt: Receipt, ref: Ref, queued: float, now: float
    ) -> list[Task]:
        session.undecoded -= 1
        session.fragments[index] = ref
        self._chunk(session, index, receipt, queued)
        self._hold(session, _fragment(index), receipt)
        if index < session.last or session.spec.open:
            ready = [self._task("write", session, index, now)]
        else:
            if not self._keep_latents:
                self._drop_latents(session, index)
            ready = self._complete(session, now)
        ready += self._release_denoise(session, now)
        return ready

    def _written(self, session: Session, index: int, receipt: Receipt, now: float) -> list[Task]:
        if session.live:
            playback.stored(session, now)
        session.written += 1
        fields = receipt.facts["record"]
        record = ChunkRecord(**{**fields, "timings": {**fields["timings"], "write": receipt.seconds}})
        session.chunks[index] = Chunk(sp_degree=record.sp_degree, record=record)
        del session.fragments[index]
        self._let_go(session, _fragment(index))
        self._drop_latents(session, index)
        return self._complete(session, now)

    def _complete(self, session: Session, now: float) -> list[Task]:
        """The commit, once every chunk but the last is durable and the last one's fragment is there.

        Nobody knew which chunk of an open session would be its last, so all of them are made durable first.
        """
        if session.spec.open:
            complete = not session.open and session.written > session.last
        else:
            complete = session.written >= session.last and session.last in session.fragments
        if not complete:
            return []
        return [self._task("commit", session, session.last, now)]

    def _release_denoise(self, session: Session, now: float) -> list[Task]:
        if not session.ready_to_denoise or session.undecoded >= self._limits.max_undecoded_per_session:
            return []
        session.released += 1
        session.undecoded += 1
        return [self._task("denoise", session, session.denoised, now)]

    def _task(self, kind: Kind, session: Session, index: int, now: float) -> Task:
        need = _WRITE
        if kind == "denoise":
            need = (kind, session.spec.preset, None if self._moves(session) else session.sp_degree)
        elif kind == "decode" or kind == "text" or kind == "encode":
            need = (kind, session.spec.preset, None)
        return Task(kind, need, self._policy.rank(session, index, now), now, session, index)

    def _moves(self, session: Session) -> bool:
        """It may change its sequence-parallel degree from chunk to chunk."""
        return self._allow_sp_moves or session.live

    @staticmethod
    def _chunk(session: Session, index: int, receipt: Receipt, queued: float) -> Chunk:
        chunk = session.chunks.get(index)
        if chunk is None:
            chunk = session.chunks[index] = Chunk()
        chunk.receipts[receipt.stage] = receipt
        chunk.queue_seconds += queued
        return chunk

    def _drop_latents(self, session: Session, index: int) -> None:
        """Decoder and writer are done with them; as long as they are the session's history they are still held."""
        ref = session.latents.pop(index, None)
        if ref is not None and ref is not session.history:
            self._let_go(session, index)

    def _hold(self, session: Session, what: int, receipt: Receipt) -> None:
        """``what``: a chunk's number for its latents, that of the start, or ``_fragment`` of one."""
        size = int(receipt.facts.get("payload_bytes", 0))
        session.bytes_held[what] = size
        self.census.payload_bytes += size

    def _let_go(self, session: Session, what: int) -> None:
        self.census.payload_bytes -= session.bytes_held.pop(what, 0)

    def _drop_payloads(self, session: Session) -> None:
        session.text = session.history = session.start = None
        session.latents.clear()
        session.fragments.clear()
        self.census.payload_bytes -= sum(session.bytes_held.values())
        session.bytes_held.clear()

    def _end(self, session: Session, state: Literal["done", "cancelled"] = "done") -> None:
        session.state = state
        self._drop_payloads(session)
        self.census.went(session.spec)
        del self.active[session.spec.session_id]


def _fragment(index: int) -> int:
    """A chunk's fragment, among what a session holds: below the start."""
    return -2 - index

"""Board entries: a session under way, and a task that waits for a lane."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import ChunkRecord, Order, Receipt, Stage
from gamecraft_core.base.spec import Control, SessionSpec
from orchestrator.ports import Ref

Kind = Literal["text", "encode", "restore", "denoise", "decode", "write", "commit", "fail", "publish"]

#: Work for a session, not for one chunk of it.
_WHOLE: tuple[Kind, ...] = ("text", "encode", "restore", "fail", "publish")

#: What a lane must match: stage, preset (None: any), sequence-parallel degree (None: any).
Need = tuple[Stage, str | None, int | None]

#: Smaller goes first: priority class, virtual time, admission number.
Rank = tuple[int, float, int]


@dataclass(slots=True)
class Chunk:
    """What is known of one chunk so far: receipts by stage and the seconds its tasks waited.

    ``record`` is there as soon as the chunk is durable, from this run's write lane or restored.
    """

    queue_seconds: float = 0.0
    receipts: dict[Stage, Receipt] = field(default_factory=dict)
    sp_degree: int = 1
    record: ChunkRecord | None = None

    @property
    def latents_sha256(self) -> str:
        if self.record is not None:
            return self.record.latents_sha256
        return str(self.receipts["denoise"].facts["latents_sha256"])


@dataclass(slots=True)
class Session:
    """One session under way. Only the board changes it.

    ``history`` is what the next denoise continues from: the encoded start, then what each chunk hands on; ``start`` is
    the encoded start where every chunk is given it, and then the first has no history. ``staged``
    are keys of an earlier start's durable chunks. ``written`` counts durable ones; the last goes into the commit.
    ``text_receipt`` is there where this session's own task encoded its prompt. ``undecoded`` counts chunks from the
    release of their denoise to the settling of their decode. ``live``: somebody watches, and ``due`` is when the next
    chunk to be stored is due. ``lane`` is where the last chunk was denoised, ``identity`` what ``orders`` calls so.
    ``controls`` are those known by now, ``last`` the number of the last chunk that they ask for; while it is ``open``,
    more may come.
    """

    spec: SessionSpec
    number: int
    base: float
    staged: tuple[str, ...] = ()
    rewinds: int = 0
    state: Literal["active", "failed", "done", "rewound", "cancelled"] = "active"
    error: FramelaneError | None = None
    text: Ref = None
    text_ready: bool = False
    history: Ref = None
    start: Ref = None
    started: bool = False
    text_receipt: Receipt | None = None
    encode_receipt: Receipt | None = None
    start_queue_seconds: float = 0.0
    released: int = 0
    denoised: int = 0
    written: int = 0
    undecoded: int = 0
    sp_degree: int | None = None
    due: float = 0.0
    playing: bool = False
    lane: str | None = None
    identity: str | None = None
    latents: dict[int, Ref] = field(default_factory=dict)
    fragments: dict[int, Ref] = field(default_factory=dict)
    chunks: dict[int, Chunk] = field(default_factory=dict)
    bytes_held: dict[int, int] = field(default_factory=dict)
    controls: tuple[Control, ...] = field(init=False)
    open: bool = field(init=False)
    last: int = field(init=False)
    live: bool = field(init=False)

    def __post_init__(self) -> None:
        self.controls, self.open = self.spec.controls, self.spec.open
        self.last = len(self.controls) - 1
        self.live = self.spec.priority == "interactive"

    def resume(self, past: Session) -> None:
        """Begin again with what was asked of ``past``, the same session, and with its audience where it was."""
        self.controls, self.open, self.last = past.controls, past.open, past.last
        self.due, self.playing = past.due, past.playing

    @property
    def kept(self) -> tuple[Ref, ...]:
        """The encoded start, for orders on every chunk."""
        return (self.start,) if self.spec.keeps_start else ()

    @property
    def ready_to_denoise(self) -> bool:
        """The next chunk's inputs are there and no earlier chunk is waiting for, or in, its denoise."""
        return (
            self.state == "active"
            and self.text_ready
            and self.started
            and self.released == self.denoised
            and self.released <= self.last
        )


@dataclass(slots=True, eq=False)
class Task:
    """One unit of work for a lane, ready since ``ready_at``. ``order`` is fixed for tasks without a session.

    ``losses`` counts lanes lost under it, by the cause; ``suspect``: it was running in a lane just lost. ``away_since``
    and ``retries`` tell of a store that does not answer.
    """

    kind: Kind
    need: Need
    rank: Rank
    ready_at: float
    session: Session | None = None
    index: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    suspect: bool = False
    away_since: float | None = None
    retries: int = 0
    order: Order | None = None
    payloads: tuple[Ref, ...] = ()

    @property
    def stage(self) -> Stage:
        return self.need[0]

    @property
    def fields(self) -> dict[str, Any]:
        """What log lines say of it: see ``gamecraft_core.base.logs``."""
        if self.session is None:
            return {"stage": self.stage}
        spec = self.session.spec
        about = {"tenant": spec.tenant, "session": spec.session_id, "stage": self.stage, "row": spec.row or None}
        return about if self.kind in _WHOLE else {**about, "chunk": self.index}

    @property
    def dead(self) -> bool:
        """Its session ended otherwise; nobody waits for the result."""
        if self.session is None or self.session.state == "active":
            return False
        return self.kind != "fail" or self.session.state == "done"

    @property
    def is_sessions(self) -> bool:
        """Its session can still fail because of it; a failure's own record cannot."""
        return self.session is not None and self.kind != "fail"

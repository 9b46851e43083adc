"""Board entries: a session under way, and a task that waits for a lane."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gamecraft_core.base.messages import Order, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.ports import Ref

Kind = Literal["text", "encode", "denoise", "decode", "write", "commit", "fail", "publish"]

#: What a lane must match: stage, preset (None: any), sequence-parallel degree (None: any).
Need = tuple[Stage, str | None, int | None]

#: Smaller goes first: priority class, virtual time, admission number.
Rank = tuple[int, float, int]


@dataclass(slots=True)
class Chunk:
    """What is known of one chunk so far: receipts by stage and the seconds its tasks waited."""

    queue_seconds: float = 0.0
    receipts: dict[Stage, Receipt] = field(default_factory=dict)
    sp_degree: int = 1


@dataclass(slots=True)
class Session:
    """One session under way. Only the board changes it.

    ``history`` is what the next denoise continues from: the encoded start, then each chunk's own latents.
    ``text_receipt`` is there where this session's own task encoded its prompt. ``undecoded`` counts chunks from the
    release of their denoise to the settling of their decode.
    """

    spec: SessionSpec
    number: int
    base: float
    state: Literal["active", "failed", "done"] = "active"
    text: Ref = None
    text_ready: bool = False
    history: Ref = None
    text_receipt: Receipt | None = None
    encode_receipt: Receipt | None = None
    start_queue_seconds: float = 0.0
    released: int = 0
    denoised: int = 0
    written: int = 0
    undecoded: int = 0
    sp_degree: int | None = None
    latents: dict[int, Ref] = field(default_factory=dict)
    fragments: dict[int, Ref] = field(default_factory=dict)
    chunks: dict[int, Chunk] = field(default_factory=dict)
    bytes_held: dict[str, int] = field(default_factory=dict)

    @property
    def ready_to_denoise(self) -> bool:
        """The next chunk's inputs are there and no earlier chunk is waiting for, or in, its denoise."""
        return (
            self.state == "active"
            and self.text_ready
            and self.encode_receipt is not None
            and self.released == self.denoised
            and self.released < self.spec.num_chunks
        )


@dataclass(slots=True, eq=False)
class Task:
    """One unit of work for a lane, ready since ``ready_at``. ``order`` is fixed for tasks without a session."""

    kind: Kind
    need: Need
    rank: Rank
    ready_at: float
    session: Session | None = None
    index: int = 0
    attempts: int = 0
    order: Order | None = None
    payloads: tuple[Ref, ...] = ()

    @property
    def stage(self) -> Stage:
        return self.need[0]

    @property
    def dead(self) -> bool:
        """Its session ended otherwise; nobody waits for the result."""
        return self.session is not None and self.session.state != "active" and self.kind != "fail"

"""Orders to lanes, the receipts they answer with, and the payloads that travel beside them.

An order and a receipt are small and are awaited by the control plane. A payload (latents, text states, a video
fragment) may be large: it stays a reference there and is only opened by the lane that needs it. Arrays cross
process boundaries as numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.spec import Control, SessionSpec, Start

Stage = Literal["text", "encode", "denoise", "decode", "write"]
STAGES: tuple[Stage, ...] = ("text", "encode", "denoise", "decode", "write")

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextStates:
    """Encoded prompt, trimmed to its real tokens: ``states`` [tokens, text width], ``pooled`` [pooled width]."""

    states: FloatArray
    pooled: FloatArray


@dataclass(frozen=True, slots=True)
class TextPayload:
    """Payload of the text stage. ``negative`` is there exactly when guidance runs a second pass."""

    positive: TextStates
    negative: TextStates | None = None


@dataclass(frozen=True, slots=True)
class Fragment:
    """Payload of the decode stage: one chunk as a self-contained fragmented MP4 (init segment + one media segment).

    Of a chunk that settles no pixels it is empty.
    """

    data: bytes
    init_bytes: int
    frames: int


@dataclass(frozen=True, slots=True)
class StartPayload:
    """Payload of the encode stage in a family that comes back to its start at every chunk.

    ``latents`` [16, 1, h, w] of the image, and what an image encoder says of it, ``image`` [tokens, image width].
    """

    latents: FloatArray
    image: FloatArray

    @property
    def nbytes(self) -> int:
        return self.latents.nbytes + self.image.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What every order has: the W3C ``traceparent`` of the span that it is carried out in, "" where traces are off."""

    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOrder(Traced):
    """Encode a prompt. ``still``: for a video of one frame."""

    session_id: str
    prompt: str
    negative_prompt: str | None
    still: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOrder(Traced):
    """Encode the start into history latents [16, T, h, w]: T is 1 for an image, a chunk's latent count for a video."""

    session_id: str
    start: Start
    height: int
    width: int
    chunk_frames: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiseOrder(Traced):
    """Denoise chunk ``index``: its payload is what the next chunk continues from, [16, T, h, w].

    That is the chunk's new latents only, or in a family whose chunks look further back those before them, too.

    ``control`` is None in a family that takes none; ``chunks`` is how many the session has, of an open one so far. For
    ``embedded_guidance`` and ``tea_cache`` see SessionSpec.
    """

    session_id: str
    index: int
    control: Control | None
    seed: int
    steps: int
    guidance: float
    shift: float
    height: int
    width: int
    chunk_frames: int
    chunks: int = 1
    embedded_guidance: float = 6.0
    guidance_rescale: float = 0.0
    flow_reverse: bool = True
    tea_cache: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOrder(Traced):
    """Decode a chunk's latents to pixels and encode those that it settles, ``frames`` from ``start_frame`` on.

    ``place`` is the fragment's in time, ``chunks`` how many the session has.
    """

    session_id: str
    index: int
    start_frame: int
    frames: int
    place: int = 0
    chunks: int = 1
    height: int
    width: int
    fps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """One chunk in the session's row: what was asked, what came out, seconds in each stage (None: did not run).

    ``staged_key`` is where it waits for the commit, "" for a last chunk that goes straight into it.
    ``fragment_sha256`` is "" until a write lane has seen the fragment.
    """

    index: int
    start: int
    end: int
    control: dict[str, Any]
    seed: int
    sp_degree: int
    timings: dict[str, float | None]
    latents_uri: str | None
    latents_sha256: str
    staged_key: str = ""
    fragment_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOrder(Traced):
    """Make one chunk durable, unseen by readers until the commit. Payloads: its fragment and its latents.

    ``identity`` names everything that decides the session's bits; ``history_sha256`` the latents that the chunk
    continued from ("" for the first). ``keep_latents`` asks for them as an artifact of their own, too.
    """

    session_id: str
    index: int
    identity: str
    history_sha256: str
    record: ChunkRecord
    keep_latents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOrder(Traced):
    """Read the valid chain of a session's staged chunks, and answer with the latents of its last.

    The receipt's fact ``chunks`` holds their records; none where the session has to begin again.
    """

    session_id: str
    keys: tuple[str, ...]
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a session's pixels come from."""

    preset: str
    weights_fingerprint: str
    code_version: str
    steps: int
    guidance: float
    shift: float
    sp_degree: int
    hardware: str
    status: str = "committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOrder(Traced):
    """Join the chunks into one video, store it, and make the session visible by one conditional put.

    Payloads: the last chunk's fragment unless it is staged, and then its latents where they are kept.
    """

    spec: SessionSpec
    chunks: tuple[ChunkRecord, ...]
    provenance: Provenance
    keep_latents: bool = False

    @property
    def index(self) -> int:
        """The chunk that this order brings."""
        return len(self.chunks) - 1

    @property
    def session_id(self) -> str:
        return self.spec.session_id


@dataclass(frozen=True, slots=True, kw_only=True)
class FailOrder(Traced):
    """Make a session's failure durable, so that a resumed run does not try it again.

    The receipt's fact ``failure`` holds it, or is absent where somebody else had committed the session.
    """

    session_id: str
    row: int
    field: str
    stage: str
    reason: str
    remedy: str

    def failure(self) -> dict[str, Any]:
        """What is stored."""
        names = ("session_id", "row", "field", "stage", "reason", "remedy")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOrder(Traced):
    """Publish one shard. Rows of ``fresh`` ids come as payloads; the store has the records of ``stored`` ones."""

    session_id: str
    shard: int
    total: int
    stored: tuple[str, ...]
    fresh: tuple[str, ...] = ()

    def from_store(self) -> PublishOrder:
        """The same shard from what the store has, when the payloads are gone."""
        return replace(self, stored=(*self.stored, *self.fresh), fresh=())


Order = (
    TextOrder
    | EncodeOrder
    | DenoiseOrder
    | DecodeOrder
    | WriteOrder
    | RestoreOrder
    | CommitOrder
    | FailOrder
    | PublishOrder
)


@dataclass(slots=True, kw_only=True)  # not frozen: one is made for every decision, and freezing costs 0.7 µs of 18
class Receipt:
    """A lane's small answer. ``started``/``ended`` are Unix seconds inside the stage; ``facts`` is JSON-able."""

    stage: Stage
    session_id: str
    index: int
    lane: str
    started: float
    ended: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.ended - self.started

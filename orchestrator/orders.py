"""Orders made from a session's request: values in, values out."""

from __future__ import annotations

from dataclasses import asdict, replace

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.ids import digest
from gamecraft_core.base.messages import (
    ChunkRecord,
    CommitOrder,
    DecodeOrder,
    DenoiseOrder,
    EncodeOrder,
    FailOrder,
    Provenance,
    Receipt,
    RestoreOrder,
    TextOrder,
    WriteOrder,
)
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.timeline.spans import place, span
from orchestrator.tasks import Chunk, Session


def text(spec: SessionSpec) -> TextOrder:
    negative = spec.negative_prompt if spec.guidance > 1.0 else None
    still = spec.num_frames == 1
    return TextOrder(session_id=spec.session_id, prompt=spec.prompt, negative_prompt=negative, still=still)


def encode(spec: SessionSpec) -> EncodeOrder:
    return EncodeOrder(
        session_id=spec.session_id,
        start=spec.start,
        height=spec.height,
        width=spec.width,
        chunk_frames=spec.chunk_frames,
        seed=spec.seed,
    )


def denoise(session: Session, index: int) -> DenoiseOrder:
    spec = session.spec
    return DenoiseOrder(
        session_id=spec.session_id,
        index=index,
        control=session.controls[index],
        chunks=len(session.controls),
        seed=spec.seed,
        steps=spec.steps,
        guidance=spec.guidance,
        shift=spec.shift,
        height=spec.height,
        width=spec.width,
        chunk_frames=spec.chunk_frames,
        embedded_guidance=spec.embedded_guidance,
        guidance_rescale=spec.guidance_rescale,
        flow_reverse=spec.flow_reverse,
        tea_cache=spec.tea_cache,
    )


def decode(session: Session, index: int) -> DecodeOrder:
    spec, chunks = session.spec, len(session.controls)
    start, end = span(spec.layout, spec.chunk_frames, chunks, index)
    return DecodeOrder(
        session_id=spec.session_id,
        index=index,
        chunks=chunks,
        place=place(spec.layout, chunks, index),
        start_frame=start,
        frames=end - start,
        height=spec.height,
        width=spec.width,
        fps=spec.fps,
    )


def write(session: Session, index: int, provenance: Provenance, keep_latents: bool) -> WriteOrder:
    return WriteOrder(
        session_id=session.spec.session_id,
        index=index,
        identity=_identity(session, provenance),
        history_sha256=session.chunks[index - 1].latents_sha256 if index else "",
        record=_record(session, index, session.chunks[index]),
        keep_latents=keep_latents,
    )


def restore(session: Session, provenance: Provenance) -> RestoreOrder:
    return RestoreOrder(
        session_id=session.spec.session_id, keys=session.staged, identity=_identity(session, provenance)
    )


def commit(session: Session, provenance: Provenance, keep_latents: bool) -> CommitOrder:
    spec = replace(session.spec, controls=session.controls) if session.spec.open else session.spec
    chunks = (session.chunks[index] for index in range(spec.num_chunks))
    records = tuple(chunk.record or _record(session, index, chunk) for index, chunk in enumerate(chunks))
    return CommitOrder(spec=spec, chunks=records, provenance=provenance, keep_latents=keep_latents)


def fail(spec: SessionSpec, stage: str, error: FramelaneError) -> FailOrder:
    return FailOrder(
        session_id=spec.session_id,
        row=spec.row,
        field=error.field,
        stage=stage,
        reason=error.message,
        remedy=error.remedy,
    )


def identity(spec: SessionSpec, provenance: Provenance) -> str:
    """A digest of all that decides a session's bits at a given sequence-parallel degree.

    The controls of an open one are not known yet; each of its chunks has its own in its record.
    """
    spec = replace(spec, controls=()) if spec.open else spec
    code = (provenance.weights_fingerprint, provenance.code_version)
    return digest({"spec": asdict(spec), "code": code}, length=32)


def _identity(session: Session, provenance: Provenance) -> str:
    """The session's, made once: neither its request nor the code changes while it is under way."""
    if session.identity is None:
        session.identity = identity(session.spec, provenance)
    return session.identity


def _record(session: Session, index: int, chunk: Chunk) -> ChunkRecord:
    """What is known before the chunk is written; the write lane adds the rest."""
    spec = session.spec
    first = index == 0
    start, end = span(spec.layout, spec.chunk_frames, len(session.controls), index)
    timings = {
        "queue": chunk.queue_seconds + (session.start_queue_seconds if first else 0.0),
        "text": _seconds(session.text_receipt) if first else None,
        "encode": _seconds(session.encode_receipt) if first else None,
        "denoise": chunk.receipts["denoise"].seconds,
        "decode": chunk.receipts["decode"].seconds,
        "write": None,
    }
    return ChunkRecord(
        index=index,
        start=start,
        end=end,
        control=session.controls[index].describe(),
        seed=spec.seed,
        sp_degree=chunk.sp_degree,
        timings=timings,
        latents_uri=None,
        latents_sha256=chunk.latents_sha256,
    )


def _seconds(receipt: Receipt | None) -> float | None:
    return receipt.seconds if receipt else None

"""Orders made from a session's request: values in, values out."""

from __future__ import annotations

from gamecraft_core.base.messages import (
    ChunkRecord,
    CommitOrder,
    DecodeOrder,
    DenoiseOrder,
    EncodeOrder,
    Provenance,
    Receipt,
    TextOrder,
    WriteOrder,
)
from gamecraft_core.base.spec import SessionSpec
from orchestrator.tasks import Chunk, Session


def text(spec: SessionSpec) -> TextOrder:
    negative = spec.negative_prompt if spec.guidance > 1.0 else None
    return TextOrder(session_id=spec.session_id, prompt=spec.prompt, negative_prompt=negative)


def encode(spec: SessionSpec) -> EncodeOrder:
    return EncodeOrder(
        session_id=spec.session_id,
        start=spec.start,
        height=spec.height,
        width=spec.width,
        chunk_frames=spec.chunk_frames,
        seed=spec.seed,
    )


def denoise(spec: SessionSpec, index: int) -> DenoiseOrder:
    return DenoiseOrder(
        session_id=spec.session_id,
        index=index,
        control=spec.controls[index],
        seed=spec.seed,
        steps=spec.steps,
        guidance=spec.guidance,
        shift=spec.shift,
        height=spec.height,
        width=spec.width,
        chunk_frames=spec.chunk_frames,
    )


def decode(spec: SessionSpec, index: int) -> DecodeOrder:
    return DecodeOrder(
        session_id=spec.session_id,
        index=index,
        start_frame=index * spec.chunk_frames,
        frames=spec.chunk_frames,
        height=spec.height,
        width=spec.width,
        fps=spec.fps,
    )


def write(spec: SessionSpec, index: int, keep_latents: bool) -> WriteOrder:
    return WriteOrder(session_id=spec.session_id, index=index, keep_latents=keep_latents)


def commit(session: Session, provenance: Provenance) -> CommitOrder:
    spec = session.spec
    records = tuple(_record(session, index, session.chunks[index]) for index in range(spec.num_chunks))
    return CommitOrder(spec=spec, chunks=records, provenance=provenance)


def _record(session: Session, index: int, chunk: Chunk) -> ChunkRecord:
    spec = session.spec
    denoised, written = chunk.receipts["denoise"].facts, chunk.receipts["write"].facts
    first = index == 0
    timings = {
        "queue": chunk.queue_seconds + (session.start_queue_seconds if first else 0.0),
        "text": _seconds(session.text_receipt) if first else None,
        "encode": _seconds(session.encode_receipt) if first else None,
        "denoise": chunk.receipts["denoise"].seconds,
        "decode": chunk.receipts["decode"].seconds,
        "write": chunk.receipts["write"].seconds,
    }
    return ChunkRecord(
        index=index,
        start=index * spec.chunk_frames,
        end=(index + 1) * spec.chunk_frames,
        control=spec.controls[index].describe(),
        seed=spec.seed,
        sp_degree=chunk.sp_degree,
        timings=timings,
        latents_uri=written.get("latents_uri"),
        latents_sha256=denoised["latents_sha256"],
        fragment_key=written["fragment_key"],
        fragment_sha256=written["fragment_sha256"],
    )


def _seconds(receipt: Receipt | None) -> float | None:
    return receipt.seconds if receipt else None

"""When a live session's chunks are due: chunk n when chunk n-1 stops playing. Pure; seconds on the caller's clock.

Play begins when the first chunk is stored; a chunk that comes late holds the player up, and moves what follows by as
much. Until play begins, the first chunk is due a set time after its session came.
"""

from __future__ import annotations

from gamecraft_core.base.spec import SessionSpec
from orchestrator.tasks import Session


def chunk_seconds(spec: SessionSpec) -> float:
    """How long one chunk plays."""
    return spec.chunk_frames / spec.fps


def due(session: Session, index: int) -> float:
    """When chunk ``index`` is due, if those before it come in time."""
    return session.due + (index - session.written) * chunk_seconds(session.spec)


def asked(session: Session, now: float) -> None:
    """Somebody who had nothing coming asks for the next chunk: it is due at once, and not since the last one ended."""
    session.due = max(session.due, now)


def stored(session: Session, now: float) -> None:
    """One more chunk can be played from ``now`` on: the next one is due when it ends."""
    begins = max(session.due, now) if session.playing else now
    session.due = begins + chunk_seconds(session.spec)
    session.playing = True

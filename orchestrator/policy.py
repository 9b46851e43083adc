"""Who goes first: priority class, then fair between sessions, then order of admission.

Fairness is by virtual time: a session's clock advances one unit a chunk, and a newcomer starts at the clock of the
chunk dispatched last. So a session that has had less goes first, and a stream of newcomers cannot starve anyone.
"""

from __future__ import annotations

from gamecraft_core.base.spec import SessionSpec
from orchestrator.tasks import Rank, Session

_CLASSES = {"interactive": 0, "batch": 1}

#: Publishing a shard goes before session work of the same stage: it frees what the run holds.
FIRST: Rank = (-1, 0.0, 0)


class VirtualTime:
    """The clock that newcomers start from: the virtual time of the denoise dispatched last."""

    def __init__(self) -> None:
        self.now = 0.0

    def dispatched(self, rank: Rank) -> None:
        self.now = max(self.now, rank[1])


def rank(session: Session, index: int) -> Rank:
    """Rank of any task of chunk ``index`` of ``session``."""
    return (priority_class(session.spec), session.base + index, session.number)


def priority_class(spec: SessionSpec) -> int:
    return _CLASSES[spec.priority]

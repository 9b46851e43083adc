"""Who goes first. A rank is made once, with its task; tenants' shares of the lanes are the scheduler's (``fairness``).

Live sessions go before batch ones, the earliest deadline first. Batch work is shared between tenants, and a tenant's
share between its sessions by virtual time: a session's clock advances one unit a chunk, and a newcomer starts at its
tenant's. So a session that has had less goes first, and newcomers starve nobody.
"""

from __future__ import annotations

from typing import Protocol

from orchestrator import playback
from orchestrator.tasks import Rank, Session

#: Classes of rank. What is not BATCH goes by rank alone, whosever it is.
URGENT, LIVE, BATCH = -1, 0, 1

#: Publishing a shard goes before session work of the same stage: it frees what the run holds.
FIRST: Rank = (URGENT, 0.0, 0)


class Policy(Protocol):
    """Ranks the tasks of a session."""

    def rank(self, session: Session, index: int, now: float) -> Rank:
        """Rank of a task of chunk ``index`` that is ready at ``now``."""
        ...


class Fair:
    """The product's policy."""

    def rank(self, session: Session, index: int, now: float) -> Rank:
        if session.live:
            return (LIVE, playback.due(session, index), session.number)
        return (BATCH, session.base + index, session.number)


class FirstCome:
    """In the order in which tasks became ready, whosever they are: what fairness is measured against."""

    def rank(self, session: Session, index: int, now: float) -> Rank:
        return (LIVE, now, session.number)

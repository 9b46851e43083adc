"""What one tenant has of what it may have: sessions, chunks asked for, bytes sent. Others do not notice who is refused.

Everything is counted from what this process knows, at once; nothing is stored, so a new start forgets the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from orchestrator.instruments import Refused
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import OverQuota
from orchestrator.live.session import Live

_HOUR = 3600.0


class Quotas:
    """Refuses with OverQuota. ``sessions_of`` gives a tenant's sessions, those included that rest or have settled."""

    def __init__(
        self,
        limits: ServiceLimits,
        sessions_of: Callable[[str], Iterable[Live]],
        clock: Callable[[], float],
        refused: Callable[[Refused], None] = lambda reason: None,
    ) -> None:
        self._limits = limits
        self._sessions_of = sessions_of
        self._clock = clock
        self._refused = refused
        self._promised: Counter[str] = Counter()
        self._sent: dict[str, tuple[float, float]] = {}

    def check_session(self, tenant: str) -> None:
        """One session more may run or wait."""
        most = self._limits.quota_of(tenant).sessions
        if most is not None and sum(live.in_engine for live in self._sessions_of(tenant)) >= most:
            raise self._over(
                f"{most} of your sessions run or wait, and no more may",
                field="sessions",
                remedy="finish or cancel one",
                retry_after=self._limits.retry_seconds,
            )

    @contextmanager
    def promising(self, tenant: str, chunks: int) -> Iterator[None]:
        """So many chunks more may be asked for; until the block ends they count, and then those of the sessions do."""
        most = self._limits.quota_of(tenant).chunks
        if most is not None:
            waiting = sum(len(live.controls) - live.shown for live in self._sessions_of(tenant) if not live.settled)
            if waiting + self._promised[tenant] + chunks > most:
                raise self._over(
                    f"{waiting} of your chunks are not made yet, and {most} may wait",
                    field="chunks",
                    remedy=f"ask for {most} at most, and for more as they come",
                    retry_after=self._limits.retry_seconds,
                )
        self._promised[tenant] += chunks
        try:
            yield
        finally:
            self._promised[tenant] -= chunks

    def charge(self, tenant: str, size: int) -> None:
        """``size`` bytes are sent; they come back evenly, over an hour. What does not fit is not charged."""
        most = self._limits.quota_of(tenant).upload_bytes
        if most is None or not size:
            return
        now = self._clock()
        sent, at = self._sent.get(tenant, (0.0, now))
        sent = max(0.0, sent - (now - at) * most / _HOUR)
        if sent + size > most:
            raise self._over(
                f"{size} bytes are more than is left of {most} an hour",
                field="upload_bytes",
                remedy="wait, or send less",
                retry_after=min(_HOUR, (sent + size - most) * _HOUR / most),
            )
        self._sent[tenant] = sent + size, now

    def _over(self, message: str, field: str, remedy: str, retry_after: float) -> OverQuota:
        self._refused("quota")
        return OverQuota(message, field=field, remedy=remedy, retry_after=retry_after)

"""Who is under way, and how many bytes they hold: the counts that limits, fairness and prefetching are about.

The board alone changes it. Every count is kept, never recounted, so that asking costs nothing.
"""

from __future__ import annotations

from gamecraft_core.base.spec import SessionSpec


class Census:
    """Sessions under way by tenant, the live ones among them, and the payload bytes held for all.

    ``shared``: there are several tenants, or a live session. Then a task may turn up at any moment with a better claim
    to a lane than what waits there now.
    """

    __slots__ = ("interactive", "payload_bytes", "sessions", "shared", "tenants")

    def __init__(self) -> None:
        self.payload_bytes = 0
        self.sessions = 0
        self.interactive = 0
        self.tenants: dict[str, int] = {}
        self.shared = False

    def came(self, spec: SessionSpec) -> None:
        self.tenants[spec.tenant] = self.tenants.get(spec.tenant, 0) + 1
        self._changed(spec, 1)

    def went(self, spec: SessionSpec) -> None:
        left = self.tenants[spec.tenant] - 1
        if left:
            self.tenants[spec.tenant] = left
        else:
            del self.tenants[spec.tenant]
        self._changed(spec, -1)

    def _changed(self, spec: SessionSpec, by: int) -> None:
        self.sessions += by
        if spec.priority == "interactive":
            self.interactive += by
        self.shared = self.interactive > 0 or len(self.tenants) > 1

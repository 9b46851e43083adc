"""The door between the service's web application and whoever owns its sessions, in this process or in another.

Every call names the tenant: of another's session there is no word. A stream is a loop of ``news`` and ``segment`` calls
with a cursor, so that nothing is kept here for those who listen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from gamecraft_core.base.errors import BadInput, FramelaneError

#: What becomes of a session. ``resting``: it left the lanes for want of controls, and the next one brings it back.
Status = Literal["queued", "running", "resting", "committed", "failed", "cancelled"]
SETTLED: tuple[Status, ...] = ("committed", "failed", "cancelled")


class NoSuchSession(BadInput):
    """There is no such session, or it is somebody else's."""


class Conflict(BadInput):
    """The session is not in a state in which this can be asked of it."""


class Refused(BadInput):
    """A request with more than one thing wrong: ``problems`` are (field, reason, remedy)."""

    def __init__(self, message: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(message, field=field, remedy=remedy)
        self.problems: tuple[tuple[str, str, str], ...] = ((self.field, self.message, self.remedy),)

    @classmethod
    def of(cls, problems: Sequence[tuple[str, str, str]]) -> Refused:
        name, reason, remedy = problems[0]
        refused = cls(reason, field=name, remedy=remedy)
        refused.problems = tuple(problems)
        return refused

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.problems,)


class Overloaded(FramelaneError):
    """There is no room now: worth another try after ``retry_after`` seconds. ``position``: its place, had it waited."""

    verdict = "wait"

    def __init__(
        self, message: str, *, retry_after: float, position: int | None = None, field: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message, field=field, remedy=remedy or f"try again in {retry_after:.0f} s")
        self.retry_after = retry_after
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return _overloaded, (self.message, self.retry_after, self.position)


def _overloaded(message: str, retry_after: float, position: int | None) -> Overloaded:
    return Overloaded(message, retry_after=retry_after, position=position)


class NotReady(Overloaded):
    """The service starts or stops."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _not_ready, (self.message, self.retry_after)


def _not_ready(message: str, retry_after: float) -> NotReady:
    return NotReady(message, retry_after=retry_after)


class OverQuota(Overloaded):
    """The caller has all that it may have of what ``field`` names; there may be room for others."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _over_quota, (self.message, self.field, self.remedy, self.retry_after)


def _over_quota(message: str, field: str, remedy: str, retry_after: float) -> OverQuota:
    return OverQuota(message, field=field, remedy=remedy, retry_after=retry_after)


class News(NamedTuple):
    """Events after a cursor; ``shown`` chunks can be fetched. ``over``: nothing will follow from this process."""

    events: list[dict[str, Any]]
    cursor: int
    shown: int
    over: bool


class Init(NamedTuple):
    """What a player needs before the first segment: the init segment, and the codec's name."""

    data: bytes
    codec: str


@dataclass(frozen=True, slots=True)
class Upload:
    """What came along with a request: bytes, and whether they are a picture or a clip."""

    kind: Literal["image", "video"]
    data: bytes = field(repr=False)


class Service(Protocol):
    """The owner of the sessions. Every call may raise a FramelaneError of those above, or StoreUnavailable."""

    def state(self) -> Literal["starting", "ready", "draining"]: ...
    def check_room(self, tenant: str, *, played: bool) -> None:
        """Raise Overloaded where a session would be refused now. From what this process knows, at once."""
        ...

    def charge(self, tenant: str, size: int) -> None:
        """The tenant sends so many bytes. Raises OverQuota where it has sent enough; at once."""
        ...

    async def create(
        self,
        cells: Mapping[str, Any],
        tenant: str,
        upload: Upload | None = None,
        *,
        played: bool = True,
        key: str = "",
        traceparent: str = "",
    ) -> dict[str, Any]:
        """A new session, described. ``played``: more controls may come; else it is made from those it has.

        Its trace, where traces are made, continues the caller's at ``traceparent``.

        ``key``: while the tenant's session of that key is known here, it is that one, and no other begins.
        """
        ...

    def catalogue(self) -> list[dict[str, Any]]:
        """The presets that are served, described, the default one first."""
        ...

    def lasting(self, preset: str, seconds: float | None) -> dict[str, Any]:
        """The fields that make a session of ``preset`` (empty: of the default one) last about ``seconds``."""
        ...

    async def describe(self, session_id: str, tenant: str) -> dict[str, Any]: ...
    async def listing(
        self, tenant: str, after: str, limit: int, *, played: bool | None = None, newest_first: bool = False
    ) -> list[dict[str, Any]]:
        """Sessions from the one after ``after`` on, oldest first unless said otherwise; ``played``: only such."""
        ...

    async def control(self, session_id: str, tenant: str, actions: Any, at: int | None) -> dict[str, Any]:
        """Go on with ``actions``. ``at``: the chunk meant, so that a repeated call changes nothing."""
        ...

    async def finish(self, session_id: str, tenant: str) -> dict[str, Any]: ...
    async def cancel(self, session_id: str, tenant: str) -> dict[str, Any]: ...
    async def delete(self, session_id: str, tenant: str) -> None: ...
    async def news(self, session_id: str, tenant: str, after: int | None) -> News:
        """What came after the cursor, once there is something; a state where the cursor is None or too old."""
        ...

    async def init(self, session_id: str, tenant: str) -> Init: ...
    async def segment(self, session_id: str, tenant: str, index: int) -> bytes:
        """The media segment of a chunk that has been shown."""
        ...

    async def video(self, session_id: str, tenant: str) -> tuple[int, str]:
        """Size and version of the finished mp4."""
        ...

    async def video_bytes(self, session_id: str, tenant: str, start: int, end: int, version: str) -> bytes: ...
    async def records(self, session_id: str, tenant: str) -> dict[str, Any]: ...
    def metrics(self) -> bytes: ...
    def timeline(self, tenant: str, seconds: float) -> bytes:
        """The last ``seconds`` as ``orchestrator.timeline`` draws them for ``tenant``; any thread may ask."""
        ...

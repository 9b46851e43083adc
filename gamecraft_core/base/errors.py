"""Every error the product raises on purpose, with its verdict.

Invariant: each error survives pickling (Ray carries it between processes) and says what should happen to the
work that met it: ``refuse`` (the request is wrong: never retried), ``retry`` (the lane is gone: elsewhere),
``quarantine`` (this input breaks lanes or yields unusable results: set aside with its reason), ``wait`` (the
store is away: later), ``rewind`` (what it needs is gone: the session goes back to what is durable of it).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gamecraft_core.base.redact import redact

Verdict = Literal["refuse", "retry", "quarantine", "wait", "rewind"]


class FramelaneError(Exception):
    """Base of the tree: one message, and where known the field at fault and what to do about it."""

    verdict: ClassVar[Verdict] = "refuse"

    def __init__(self, message: str, *, field: str = "", remedy: str = "") -> None:
        self.message = redact(message)
        self.field = field
        self.remedy = redact(remedy)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.field, self.remedy)

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


def _rebuild(cls: type[FramelaneError], message: str, field: str, remedy: str) -> FramelaneError:
    return cls(message, field=field, remedy=remedy)


class UsageError(FramelaneError):
    """The command, preset or option is wrong: the run is refused before anything starts."""


class BadInput(FramelaneError):
    """One session's request is wrong: that session fails, every other goes on."""


class Cancelled(FramelaneError):
    """A session was called off: nobody wants it any more."""


class OutputTaken(UsageError):
    """The output folder belongs to a different run."""


class WeightsError(UsageError):
    """A checkpoint is missing, misshapen or truncated."""


class Poisoned(FramelaneError):
    """A result that must never be committed (NaN, Inf), or an input that keeps killing lanes."""

    verdict = "quarantine"


class LaneLost(FramelaneError):
    """The process or group that carried the work died or hung; the work itself is blameless."""

    verdict = "retry"


class LaneHung(LaneLost):
    """The lane is there but makes no progress: a stuck collective, a stopped process."""


class NoRoom(LaneLost):
    """The cluster has no place for a lane now."""


class OutOfMemory(LaneLost):
    """The lane ran out of memory, its device's or its node's."""


class StateLost(FramelaneError):
    """A payload died with the process or node that held it, or a staged chunk is gone: the work itself is blameless."""

    verdict = "rewind"


class StoreUnavailable(FramelaneError):
    """The store did not answer in time or refused for now."""

    verdict = "wait"

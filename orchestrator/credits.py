"""What is between two stages counts against a limit until it has passed the second: the credits of backpressure.

A denoise takes a credit that its decode returns; a decode takes one that its write or commit returns. What a session
that ended otherwise had is returned at once.
"""

from __future__ import annotations

from orchestrator.tasks import Session, Task


class Backlog:
    """Chunks between two stages, counted by session so that an ended session's can be forgotten at once."""

    __slots__ = ("_of", "total")

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self.total = 0

    def add(self, session: Session) -> None:
        self._of[session.number] = self._of.get(session.number, 0) + 1
        self.total += 1

    def remove(self, session: Session) -> None:
        if left := self._of.pop(session.number, 0):
            self.total -= 1
            if left > 1:
                self._of[session.number] = left - 1

    def forget(self, session: Session) -> None:
        self.total -= self._of.pop(session.number, 0)


class Credits:
    """The counts that ``limits.max_undecoded`` and ``limits.max_unwritten`` bound."""

    def __init__(self) -> None:
        self.undecoded = Backlog()
        self.unwritten = Backlog()

    def dispatched(self, task: Task) -> None:
        if task.session is None:
            return
        if task.kind == "denoise":
            self.undecoded.add(task.session)
        elif task.kind == "decode":
            self.unwritten.add(task.session)

    def ended(self, task: Task, *, succeeded: bool) -> None:
        session, kind = task.session, task.kind
        if session is None:
            return
        if kind == "denoise":
            if not succeeded:
                self.undecoded.remove(session)
        elif kind == "decode":
            (self.undecoded if succeeded else self.unwritten).remove(session)
        elif succeeded and (kind == "write" or kind == "commit"):
            self.unwritten.remove(session)

    def forget(self, session: Session) -> None:
        self.undecoded.forget(session)
        self.unwritten.forget(session)

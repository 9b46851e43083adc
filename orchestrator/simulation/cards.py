"""Cards that lanes share: how fast each order at work goes, and how that changes when another begins or ends.

Exact for the model stated here: all that works on one card shares it equally, and ``loss`` of the card is lost while
they share; an order on several cards goes as fast as the most crowded one lets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.simulation.lanes import Server
    from orchestrator.tasks import Task

#: Moments a second. What would end less than one apart only because of rounding ends together.
_MOMENTS = 2.0**30


class Turn:
    """An order at work. At ``since`` it had ``left`` seconds to go at ``rate`` 1; ``version`` counts its changes."""

    __slots__ = ("began", "left", "rate", "server", "since", "task", "version")

    def __init__(self, server: Server, task: Task, began: float, seconds: float) -> None:
        self.server = server
        self.task = task
        self.began = self.since = began
        self.left = seconds
        self.rate = 0.0
        self.version = 0


class Cards:
    """Who works where. ``changed`` holds the turns that may go at another rate from now on."""

    def __init__(self, loss: float) -> None:
        self._loss = loss
        self._on: dict[int, dict[Turn, None]] = {}
        self.changed: dict[Turn, None] = {}

    def enter(self, turn: Turn) -> None:
        self.changed[turn] = None
        for card in turn.server.lane.cards:
            crowd = self._on.setdefault(card, {})
            self.changed |= crowd
            crowd[turn] = None

    def leave(self, turn: Turn) -> None:
        """Its end, whenever that was to come, is void."""
        turn.version += 1
        for card in turn.server.lane.cards:
            del self._on[card][turn]
            self.changed |= self._on[card]
        self.changed.pop(turn, None)

    def reckon(self, now: float) -> Iterator[tuple[float, Turn]]:
        """Every turn whose end is another than before, and when it is."""
        for turn in self.changed:
            crowd = max((len(self._on[card]) for card in turn.server.lane.cards), default=1)
            rate = 1.0 if crowd == 1 else (1.0 - self._loss) / crowd
            if rate != turn.rate:
                turn.left -= (now - turn.since) * turn.rate
                turn.since, turn.rate = now, rate
                turn.version += 1
                yield max(now, moment(now + turn.left / rate)), turn
        self.changed.clear()


def moment(when: float) -> float:
    """``when``, to a nanosecond."""
    return round(when * _MOMENTS) / _MOMENTS

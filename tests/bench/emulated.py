"""Real Ray actors whose stages sleep, on emulated cards that their lanes share in real time.

A lane at work has a file in the folder of each of its cards; how many files there are says how crowded a card is.
Everybody looks every few milliseconds and goes on at the rate of the planner's model: alone at full speed, else at an
equal share of what is left after the loss. A group's ranks go as fast as their most crowded card lets them, as if they
exchanged data all the time. Which GPU is whose, Ray decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.role import Role, answering
from gamecraft_core.base.messages import DenoiseOrder, Order, Receipt
from orchestrator.simulation.lanes import SimLane
from orchestrator.simulation.times import Constant
from tests.fakes.lanes import facts_of

#: How often a lane looks how crowded its cards are.
_LOOK_S = 0.01


@dataclass(frozen=True)
class Pace:
    """Seconds of a lane's turns with its cards to itself, ``first`` for a session's first chunk; ``after`` without."""

    seconds: float
    first: float
    after: float
    serial: bool

    @classmethod
    def of(cls, lane: SimLane) -> Pace:
        """That of a planned lane."""
        seconds, first, after = (_constant(times) for times in (lane.seconds, lane.first, lane.after))
        assert seconds is not None
        return cls(seconds, seconds if first is None else first, after or 0.0, lane.serial)


def _constant(times: object) -> float | None:
    assert times is None or isinstance(times, Constant)
    return times.seconds if times else None


def options(folder: Path, lanes: list[SimLane], loss: float) -> dict[str, Any]:
    """What the actors of ``lanes`` are told in place of a store's options; ``folder`` must be empty."""
    return {"folder": str(folder), "loss": loss, "paces": {lane.name: asdict(Pace.of(lane)) for lane in lanes}}


def placed(folder: Path) -> dict[str, tuple[int, ...]]:
    """The cards on which each lane came to lie, those on the host left out."""
    lanes = (each for each in folder.iterdir() if not each.name.startswith("card-"))
    return {lane.name: tuple(sorted(int(card.name.partition("-")[2]) for card in lane.iterdir())) for lane in lanes}


class EmulatedActor(Role):
    """A lane or rank of any stage."""

    def __init__(self, lane: str, *arguments: Any) -> None:
        self._name = lane.partition("@")[0]
        stage: Any = self._name.partition("-")[0]
        super().__init__(stage, lane)
        told: Mapping[str, Any] = next(each for each in arguments if isinstance(each, dict))
        self._pace = Pace(**told["paces"][self._name])
        self._folder, self._loss = Path(told["folder"]), told["loss"]
        self._turn = threading.Lock()

    def address(self) -> str:
        return ""

    def join(self, address: str | None) -> dict[str, Any]:
        self._take_cards()
        return {}

    def warm(self) -> dict[str, Any]:
        """Every rank of a group has joined by now."""
        if self._stage != "denoise":
            self._take_cards()
        group = self._folder / self._name
        self._cards = [self._folder / card.name for card in group.iterdir()] if group.exists() else []
        return self.ping()

    @answering
    def run(self, order: Order, *payloads: Any) -> tuple[Receipt, None]:
        if not self._pace.serial:
            started = time.time()
            time.sleep(self._pace.seconds)
            return self.receipt(order, started, facts_of(order)), None
        with self._turn:
            started = time.time()
            first = isinstance(order, DenoiseOrder) and not order.index
            self._work(self._pace.first if first else self._pace.seconds)
            decoded = time.time()
        time.sleep(self._pace.after)
        return self.receipt(order, started, {**facts_of(order), "decoded": decoded}), None

    def _take_cards(self) -> None:
        """Note for the whole lane on which cards this process lies."""
        import ray

        self._own = [self._folder / f"card-{number}" for number in ray.get_gpu_ids()]
        for card in self._own:
            card.mkdir(exist_ok=True)
            (self._folder / self._name).mkdir(exist_ok=True)
            (self._folder / self._name / card.name).touch()

    def _work(self, seconds: float) -> None:
        if not self._cards:
            time.sleep(seconds)
            return
        left, then = seconds, time.perf_counter()
        with self._present():
            while left > 0:
                crowd = max(sum(1 for _ in card.iterdir()) for card in self._cards)
                rate = (1.0 - self._loss) / crowd if crowd > 1 else 1.0
                time.sleep(min(_LOOK_S, left / rate))
                now = time.perf_counter()
                left, then = left - (now - then) * rate, now

    @contextmanager
    def _present(self) -> Iterator[None]:
        marks = [card / self._name for card in self._own]
        for mark in marks:
            mark.touch()
        try:
            yield
        finally:
            for mark in marks:
                mark.unlink()

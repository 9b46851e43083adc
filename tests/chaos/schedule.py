"""What will be done to a run, drawn from a seed: the same seed and number give the same list of faults.

A fault names its kind, its victim as an index into whatever candidates there are at that moment, and when it comes:
after so many more objects were stored, or, where nothing moves, after so many seconds (more of them while a fleet
starts). Which instruction a process dies in is left to chance; what is done to it, and in what order, is not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gamecraft_core.base.points import POINTS

Kind = Literal[
    "kill_rank",
    "kill_decoder",
    "kill_writer",
    "kill_text",
    "kill_encoder",
    "kill_driver",
    "stop_rank",
    "remove_node",
    "s3_kill",
    "s3_slow",
    "s3_busy",
    "s3_drop",
    "s3_refuse",
    "point",
]

#: Every kind but ``point``, with how often it comes beside the others.
WEIGHTS: dict[Kind, int] = {
    "kill_rank": 6,
    "kill_decoder": 4,
    "kill_writer": 4,
    "kill_text": 2,
    "kill_encoder": 2,
    "kill_driver": 4,
    "stop_rank": 2,
    "remove_node": 1,
    "s3_kill": 1,
    "s3_slow": 2,
    "s3_busy": 3,
    "s3_drop": 3,
    "s3_refuse": 2,
    "point": 8,
}

#: Reached once a round, when its output is claimed: armed before the driver starts.
FIRST_POINT = "claim.made"

#: Reached when a driver takes up what another has left.
RESUMED_POINT = "restore.begun"

#: Reached when every session has settled: they may be armed at any moment of a round.
_END_POINTS = ("finish.begun", "finish.swept")
_LAST = 8

#: Two thirds of a short schedule go to kinds, the rest to points; the first two kinds are always among them.
_ALWAYS: tuple[Kind, ...] = ("kill_rank", "kill_driver")
_SHORT = (2, 3)

_MOST_PUTS = 8
_PATIENCE_S = (3.0, 9.0)
_DELAY_S = (0.0, 0.4)
_SECONDS: dict[Kind, tuple[float, float]] = {
    "remove_node": (0.5, 4.0),
    "s3_kill": (0.5, 4.0),
    "s3_slow": (2.0, 6.0),
    "s3_busy": (0.5, 8.0),
    "s3_drop": (0.2, 4.0),
    "s3_refuse": (0.5, 6.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: it comes ``delay`` seconds after ``puts`` more objects were stored, or ``patience`` seconds passed.

    ``target`` picks among the candidates, ``seconds`` is how long an outage lasts, ``point`` the one that is armed.
    """

    number: int
    kind: Kind
    target: int
    puts: int
    patience: float
    delay: float
    seconds: float = 0.0
    point: str = ""

    @property
    def title(self) -> str:
        return self.point or self.kind


def draw(seed: int, faults: int) -> tuple[Fault, ...]:
    """The faults of ``seed``, in the order in which they come.

    With as many faults as there are kinds and points, each of them is there at least once; fewer are a sample.
    """
    generator = random.Random(f"framelane chaos {seed} {faults}")
    titles = list(_sample(generator, faults))
    generator.shuffle(titles)
    return tuple(_fault(generator, number, *title) for number, title in enumerate(_in_order(generator, titles)))


def rounds(faults: Sequence[Fault], per_round: int) -> Iterator[tuple[Fault, ...]]:
    """``faults`` cut into rounds of about ``per_round``, each in an order in which all of it can strike."""
    count = max(1, round(len(faults) / per_round))
    for number in range(count):
        yield prepared(faults[len(faults) * number // count : len(faults) * (number + 1) // count])


def prepared(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """One round: what can only strike at its beginning comes first, and a resumption has a driver's death after it."""
    first = [replace(fault, puts=0, patience=0.0, delay=0.0) for fault in faults if fault.point == FIRST_POINT]
    resumed = [fault for fault in faults if fault.point == RESUMED_POINT]
    rest = [fault for fault in faults if fault.point not in (FIRST_POINT, RESUMED_POINT)]
    if not resumed:
        return (*first, *rest)
    kills = [at for at, fault in enumerate(rest) if fault.kind == "kill_driver"]
    if not kills:
        rest.append(replace(resumed[0], kind="kill_driver", point=""))
        kills = [len(rest) - 1]
    at = next((at for at in kills if at >= len(rest) // 4), kills[-1])
    return (*first, *rest[:at], *resumed, *rest[at:])


def _sample(generator: random.Random, faults: int) -> Iterator[tuple[Kind, str]]:
    kinds: list[Kind] = [kind for kind in WEIGHTS if kind != "point"]
    points = list(POINTS)
    if faults < len(kinds) + len(points):
        wanted = max(faults * _SHORT[0] // _SHORT[1], 1)
        others = [kind for kind in kinds if kind not in _ALWAYS]
        generator.shuffle(others)
        generator.shuffle(points)
        kinds = [*_ALWAYS, *others][:wanted]
        points = points[: faults - len(kinds)]
    yield from ((kind, "") for kind in kinds)
    yield from (("point", point) for point in points)
    again = [point for point in POINTS if point != FIRST_POINT]
    for kind in generator.choices(list(WEIGHTS), list(WEIGHTS.values()), k=max(0, faults - len(kinds) - len(points))):
        yield kind, generator.choice(again) if kind == "point" else ""


def _in_order(generator: random.Random, titles: list[tuple[Kind, str]]) -> list[tuple[Kind, str]]:
    """Points of a session's life come while there are sessions: not among the very last faults."""
    early = len(titles) - min(len(titles) // 3, _LAST)
    ordered, late = titles[:early], titles[early:]
    for title in late:
        if title[1] and title[1] not in _END_POINTS:
            ordered.insert(generator.randrange(len(ordered) + 1), title)
    return ordered + [title for title in late if not title[1] or title[1] in _END_POINTS]


def _fault(generator: random.Random, number: int, kind: Kind, point: str) -> Fault:
    low, high = _SECONDS.get(kind, (0.0, 0.0))
    return Fault(
        number=number,
        kind=kind,
        target=generator.randrange(1 << 16),
        puts=generator.randint(1, _MOST_PUTS),
        patience=round(generator.uniform(*_PATIENCE_S), 3),
        delay=round(generator.uniform(*_DELAY_S), 3),
        seconds=round(generator.uniform(low, high), 3),
        point=point,
    )

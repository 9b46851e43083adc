"""What lanes a fleet consists of, from its spec: by kind, by name, and what each one's actors are given.

Values only. Names are the same in every start. A kind has more numbers than lanes, so that a lane that is to take the
place of one that still empties has a name of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from actors.decode import DecodeActor
from actors.denoise import DenoiseRank
from actors.encode import EncodeActor
from actors.fleet_spec import FleetSpec, GroupSpec, LaneSpec, Reservation
from actors.text import TextActor
from actors.write import WriteActor
from gamecraft_core.base.family import family_of
from gamecraft_core.base.messages import Stage
from gamecraft_core.base.preset import Preset

#: The class behind the lanes of each stage.
ROLES: dict[Stage, type] = {
    "text": TextActor,
    "encode": EncodeActor,
    "denoise": DenoiseRank,
    "decode": DecodeActor,
    "write": WriteActor,
}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """One lane as it is to be: ``arguments`` are those of its role's class after the lane's name."""

    name: str
    stage: Stage
    preset: str | None
    role: type
    spec: Reservation
    arguments: tuple[Any, ...]

    @property
    def ranks(self) -> int:
        return self.spec.sp_degree if isinstance(self.spec, GroupSpec) else 1

    def rank_arguments(self, rank: int) -> tuple[Any, ...]:
        own = (rank, self.spec.layout) if isinstance(self.spec, GroupSpec) else ()
        return (self.name, *self.arguments, *own)


@dataclass(frozen=True, slots=True)
class LaneKind:
    """Lanes that offer the same: ``first`` are those that a run starts with, the others may join and leave later."""

    first: tuple[Blueprint, ...]
    others: tuple[Blueprint, ...]
    most: int

    @property
    def name(self) -> str:
        degree = f" of {self.sp_degree} ranks" if self.sp_degree > 1 else ""
        return f"{self.stage}{f'@{self.preset}' if self.preset else ''}{degree}"

    @property
    def stage(self) -> Stage:
        return self.first[0].stage

    @property
    def preset(self) -> str | None:
        return self.first[0].preset

    @property
    def sp_degree(self) -> int:
        return self.first[0].ranks

    @property
    def depth(self) -> int:
        return self.first[0].spec.depth

    @property
    def least(self) -> int:
        return len(self.first)


def kinds(
    spec: FleetSpec,
    presets: Sequence[Preset],
    root: str,
    store_options: Mapping[str, Any],
    roles: Mapping[Stage, type],
) -> list[LaneKind]:
    """Every kind of lane of a fleet. Denoise comes first, so that ranks, which need most of a GPU, find it.

    A preset whose sessions begin from nothing has no lane to encode starts.
    """
    options = dict(store_options)
    planned: list[LaneKind] = []

    def plan(stage: Stage, preset: Preset | None, lanes: Sequence[LaneSpec | GroupSpec]) -> None:
        numbers = iter(count())
        name = preset.name if preset else None
        of = f"@{name}" if name else ""

        def some(lane: LaneSpec | GroupSpec, how_many: int) -> tuple[Blueprint, ...]:
            given = (preset, lane.threads, options) if preset else (root, options)
            names = [f"{stage}-{next(numbers)}{of}" for _ in range(how_many)]
            return tuple(Blueprint(each, stage, name, roles[stage], lane, given) for each in names)

        alike: dict[int, list[tuple[LaneSpec | GroupSpec, tuple[Blueprint, ...]]]] = {}
        for lane in lanes:
            degree = lane.sp_degree if isinstance(lane, GroupSpec) else 1
            alike.setdefault(degree, []).append((lane, some(lane, lane.least)))
        for same in alike.values():
            first = tuple(blueprint for _, planned_for in same for blueprint in planned_for)
            most = sum(lane.most for lane, _ in same)
            # Twice as many names as lanes: each may have a successor before it has left.
            planned.append(LaneKind(first, some(same[0][0], 2 * most - len(first)), most))

    for preset in presets:
        plan("denoise", preset, spec.denoise)
    for preset in presets:
        plan("text", preset, [spec.text])
        if family_of(preset.family).starts != ("none",):
            plan("encode", preset, [spec.encode])
        plan("decode", preset, [spec.decode])
    plan("write", None, [spec.write])
    return planned

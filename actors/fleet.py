"""The fleet: every lane of a run, started, warmed up and at last taken down.

Denoise groups are placed first: their ranks need most of a GPU each, the other roles fit into what is left. A group of
several ranks has a placement group of its own, so that they stay together. Nothing is called ready
before its warm-up has answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.decode import DecodeActor
from actors.denoise import DenoiseRank
from actors.encode import EncodeActor
from actors.fleet_spec import FleetSpec, GroupSpec, LaneSpec, Reservation
from actors.lanes import ActorLane, GroupLane
from actors.text import TextActor
from actors.write import WriteActor
from gamecraft_core.base.errors import FramelaneError, LaneLost, UsageError
from gamecraft_core.base.messages import Stage
from gamecraft_core.base.preset import Preset

log = logging.getLogger("framelane.fleet")

#: How long an actor or a group may wait for its place on the cluster.
_ROOM_TIMEOUT_S = 300.0

#: A placement group's bundle may not be empty.
_LEAST_CPU = 0.01


@dataclass(slots=True)
class Fleet:
    """Lanes that are ready, and by preset what their records must say."""

    lanes: list[ActorLane | GroupLane] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    actors: list[Any] = field(default_factory=list)
    groups: list[PlacementGroup] = field(default_factory=list)

    def close(self) -> None:
        """End every actor and give back what was reserved."""
        for actor in self.actors:
            with suppress(Exception):
                ray.kill(actor)
        for group in self.groups:
            with suppress(Exception):
                remove_placement_group(group)


async def start(
    spec: FleetSpec, presets: Sequence[Preset], output_root: str, store_options: Mapping[str, Any]
) -> Fleet:
    """Start the fleet on the connected cluster; raises the first FramelaneError that a lane met while starting."""
    has_gpus = bool(ray.cluster_resources().get("GPU"))  # type: ignore[no-untyped-call]
    builder = _Builder(spec, Fleet(), output_root, dict(store_options), has_gpus)
    try:
        groups = [(preset, number, group) for preset in presets for number, group in _numbered(spec)]
        places = await asyncio.gather(*(builder.place(group) for _, _, group in groups))
        waiting = [builder.group(*each, place) for each, place in zip(groups, places, strict=True)]
        waiting += [builder.lane(stage, preset) for preset in presets for stage in ("text", "encode", "decode")]
        waiting.append(builder.writers())
        await asyncio.gather(*waiting)
    except BaseException:
        builder.fleet.close()
        raise
    log.info("fleet %s is ready: %d lanes", spec.name, len(builder.fleet.lanes))
    return builder.fleet


def _numbered(spec: FleetSpec) -> list[tuple[int, GroupSpec]]:
    """Every group of the fleet, numbered from 0."""
    return list(enumerate(group for group in spec.denoise for _ in range(group.groups)))


@dataclass(slots=True)
class _Builder:
    """Starts actors and collects them in ``fleet``, so that a failure half way can take all of them down."""

    spec: FleetSpec
    fleet: Fleet
    root: str
    store_options: dict[str, Any]
    has_gpus: bool

    async def place(self, spec: GroupSpec) -> PlacementGroup | None:
        """Room for a group's ranks beside each other; a group of one needs no more than its actor."""
        if spec.sp_degree == 1:
            return None
        bundle = {"CPU": spec.num_cpus or _LEAST_CPU, **({"GPU": spec.num_gpus} if spec.num_gpus else {})}
        place: PlacementGroup = placement_group([bundle] * spec.sp_degree, strategy="PACK")
        self.fleet.groups.append(place)
        await _in_place(place.ready(), f"{spec.sp_degree} ranks of a denoise group", spec)
        return place

    async def group(self, preset: Preset, number: int, spec: GroupSpec, place: PlacementGroup | None) -> None:
        name = self._name("denoise", preset, number)
        ranks = [
            self._actor(DenoiseRank, spec, place, name, preset, spec.threads, self.store_options, rank, spec.layout)
            for rank in range(spec.sp_degree)
        ]
        await asyncio.gather(*(_in_place(rank.ping.remote(), name, spec) for rank in ranks))
        address = await _ready(ranks[0].address.remote(), name) if place else None
        facts = await asyncio.gather(*(_ready(rank.join.remote(address), name) for rank in ranks))
        await asyncio.gather(*(_ready(rank.warm.remote(), name) for rank in ranks))
        self.fleet.facts[preset.name] = facts[0]
        lane: ActorLane | GroupLane = ActorLane(name, "denoise", preset.name, ranks[0], spec.depth)
        if place:
            lane = GroupLane(name, preset.name, tuple(ranks), spec.depth)
        self.fleet.lanes.append(lane)

    async def lane(self, stage: Stage, preset: Preset) -> None:
        spec: LaneSpec = getattr(self.spec, stage)
        kind = {"text": TextActor, "encode": EncodeActor, "decode": DecodeActor}[stage]
        names = [self._name(stage, preset, number) for number in range(spec.lanes)]
        actors = [self._actor(kind, spec, None, name, preset, spec.threads, self.store_options) for name in names]
        await self._warm(stage, preset.name, spec, names, actors)

    async def writers(self) -> None:
        names = [f"write-{number}" for number in range(self.spec.write.lanes)]
        actors = [self._actor(WriteActor, self.spec.write, None, name, self.root, self.store_options) for name in names]
        await self._warm("write", None, self.spec.write, names, actors)

    async def _warm(
        self, stage: Stage, preset: str | None, spec: LaneSpec, names: Sequence[str], actors: Sequence[Any]
    ) -> None:
        lanes = list(zip(names, actors, strict=True))
        await asyncio.gather(*(_in_place(actor.ping.remote(), name, spec) for name, actor in lanes))
        await asyncio.gather(*(_ready(actor.warm.remote(), name) for name, actor in lanes))
        self.fleet.lanes += [ActorLane(name, stage, preset, actor, spec.depth) for name, actor in lanes]

    def _actor(self, kind: type, spec: Reservation, placement: PlacementGroup | None, *arguments: Any) -> Any:
        options: dict[str, Any] = {
            "num_cpus": spec.num_cpus,
            "num_gpus": spec.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if kind in (DecodeActor, WriteActor):
            options["max_concurrency"] = spec.depth
        if self.has_gpus and not spec.num_gpus:
            # Ray leaves every GPU visible to an actor that reserved none.
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        if placement is not None:
            options["num_cpus"] = spec.num_cpus or _LEAST_CPU
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(placement)
        actor: Any = ray.remote(kind).options(**options).remote(*arguments)
        self.fleet.actors.append(actor)
        return actor

    @staticmethod
    def _name(stage: Stage, preset: Preset, number: int) -> str:
        return f"{stage}-{number}@{preset.name}"


async def _in_place(answer: Any, what: str, spec: Reservation) -> None:
    """Await ``answer``, which comes as soon as Ray has found room; refuse to wait for ever where others hold it."""
    try:
        async with asyncio.timeout(_ROOM_TIMEOUT_S):
            await _ready(answer, what)
    except TimeoutError as error:
        raise UsageError(
            f"no room for {what} ({spec.num_cpus:g} CPU, {spec.num_gpus:g} GPU each) in {_ROOM_TIMEOUT_S:g} s",
            field="fleet",
            remedy="choose a smaller fleet, or wait until the cluster is free",
        ) from error


async def _ready(answer: Any, lane: str) -> Any:
    """Await a start-up call; what a lane could not start for is raised as it is."""
    try:
        return await answer
    except RayTaskError as error:
        if isinstance(error.cause, FramelaneError):
            raise error.cause from error
        raise LaneLost(f"{lane} could not start: {type(error.cause).__name__}: {error.cause}") from error
    except RayError as error:
        message = str(error).splitlines()
        raise LaneLost(f"{lane} could not start: {message[0]} {message[-1]}") from error

"""How one lane comes to stand on the cluster: room, processes, weights, warm-up.

Invariant: ``build`` ends with a lane that serves, or with an error and nothing left of what it started.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import ActorAlreadyExistsError, OutOfMemoryError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.blueprints import Blueprint
from actors.fleet_spec import FleetSpec
from actors.lanes import ActorLane, GroupLane
from actors.processes import end, nodes_of, stands
from actors.role import WATCH, is_out_of_memory
from actors.watch import together, watched
from gamecraft_core.base.errors import FramelaneError, LaneLost, NoRoom, OutOfMemory
from gamecraft_core.base.telemetry import Telemetry

log = logging.getLogger("framelane.fleet")

#: Stages whose actors carry as many orders at once as their lane is deep.
_THREADED = ("decode", "write")

#: A placement group's bundle may not be empty.
_LEAST_CPU = 0.01

#: What Ray takes of a node's accelerator type for a process that asks for the type.
_TOUCH = 0.001


@dataclass
class Standing:
    """A lane that stands, and what it stands on. ``generation`` counts how often it was built."""

    blueprint: Blueprint
    actors: tuple[Any, ...]
    generation: int
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> frozenset[str]:
        """Where its processes are: they stay there. Asks Ray, once."""
        return nodes_of(self.actors)

    @property
    def lane(self) -> ActorLane | GroupLane:
        plan, spec = self.blueprint, self.blueprint.spec
        own = (spec.depth, spec.stall_seconds, spec.speed)
        if plan.ranks > 1:
            return GroupLane(plan.name, plan.preset or "", self.actors, *own, gpus=plan.ranks * spec.num_gpus)
        return ActorLane(plan.name, plan.stage, plan.preset, self.actors[0], *own, gpus=spec.num_gpus)


@dataclass(slots=True)
class Site:
    """The cluster as one fleet uses it: its limits, the names it gives, its actors, and places by lane.

    ``identity`` names a detached fleet, whose actors and places have names and outlive this process. ``owner`` is the
    Ray job of this process.
    """

    spec: FleetSpec
    identity: str | None
    has_gpus: bool
    owner: str
    telemetry: Telemetry = field(default_factory=Telemetry)
    actors: set[Any] = field(default_factory=set)
    places: dict[str, PlacementGroup] = field(default_factory=dict)
    closed: bool = False

    def name(self, blueprint: Blueprint, rank: int | None = None) -> str | None:
        """Of an actor, or (without ``rank``) of a group's place; None where nothing is to be found again."""
        if self.identity is None:
            return None
        return f"{self.identity}/{blueprint.name}" + ("" if rank is None else f"/{rank}")

    async def room(self, blueprint: Blueprint) -> PlacementGroup | None:
        """Room for a group's ranks beside each other; a group of one needs no more than its actor. Raises NoRoom."""
        if blueprint.ranks == 1:
            return None
        if (there := self._standing_place(blueprint)) is not None:
            return there
        self._check_open()
        spec = blueprint.spec
        bundle = {"CPU": spec.num_cpus or _LEAST_CPU, **({"GPU": spec.num_gpus} if spec.num_gpus else {})}
        if spec.accelerator is not None:
            bundle[f"accelerator_type:{spec.accelerator}"] = _TOUCH
        place: PlacementGroup = placement_group(
            [bundle] * blueprint.ranks,
            strategy="PACK",
            name=self.name(blueprint) or "",
            lifetime="detached" if self.identity else None,
        )
        self.places[blueprint.name] = place
        try:
            await self.in_place(place.ready(), blueprint)
        except BaseException:
            self.vacate(blueprint.name)
            raise
        return place

    def actor(self, blueprint: Blueprint, rank: int, place: PlacementGroup | None) -> Any:
        self._check_open()
        spec = blueprint.spec
        options: dict[str, Any] = {
            "num_cpus": spec.num_cpus,
            "num_gpus": spec.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "concurrency_groups": {WATCH: 1},
        }
        if spec.accelerator is not None:
            options["accelerator_type"] = spec.accelerator
        if self.identity is not None:
            options |= {"name": self.name(blueprint, rank), "lifetime": "detached"}
        if blueprint.stage in _THREADED:
            options["max_concurrency"] = spec.depth
        if self.has_gpus and not spec.num_gpus:
            # Ray leaves every GPU visible to an actor that reserved none.
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        if place is not None:
            options["num_cpus"] = spec.num_cpus or _LEAST_CPU
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(place)
        # As arguments of remote(): options() takes no concurrency groups.
        made: Any = ray.remote(**options)(blueprint.role)
        try:
            actor = made.remote(*blueprint.rank_arguments(rank))
        except ActorAlreadyExistsError as error:
            raise LaneLost(f"{options['name']} is there already") from error
        self.actors.add(actor)
        return actor

    async def in_place(self, answer: Any, blueprint: Blueprint) -> Any:
        """Await ``answer``, which comes as soon as Ray has found room; refuse to wait for ever where others hold it."""
        spec = blueprint.spec
        try:
            async with asyncio.timeout(self.spec.room_seconds):
                return await ready(answer, blueprint.name)
        except TimeoutError as error:
            which = f" {spec.accelerator}" if spec.accelerator else ""
            each = f"{blueprint.ranks} × {spec.num_cpus:g} CPU, {spec.num_gpus:g}{which} GPU"
            raise NoRoom(f"no room for {blueprint.name} ({each}) in {self.spec.room_seconds:g} s") from error

    def kill(self, actor: Any) -> None:
        self.actors.discard(actor)
        with suppress(RayError, ValueError):
            ray.kill(actor)

    def close(self) -> None:
        """End every actor, give back every place, and start none any more."""
        self.closed = True
        for actor in list(self.actors):
            self.kill(actor)
        for lane in list(self.places):
            self.vacate(lane)

    def _standing_place(self, blueprint: Blueprint) -> PlacementGroup | None:
        """The place that a group has, if its nodes live: it outlives processes.

        After a node's loss it is given back. Ray would move the bundles itself, but groups that are half moved can
        block each other for ever.
        """
        place, name = self.places.get(blueprint.name), self.name(blueprint)
        if place is None and name is not None:
            with suppress(ValueError):
                place = self.places[blueprint.name] = get_placement_group(name)
        if place is not None and not stands(place):
            self.vacate(blueprint.name)
            return None
        return place

    def vacate(self, lane: str) -> None:
        """Give back the place of ``lane``, where it has one of its own."""
        place = self.places.pop(lane, None)
        with suppress(RayError, ValueError):
            if place is None and self.identity is not None:
                place = get_placement_group(f"{self.identity}/{lane}")
            if place is not None:
                remove_placement_group(place)

    def _check_open(self) -> None:
        if self.closed:
            raise LaneLost("the fleet is closed")


async def build(site: Site, blueprint: Blueprint, generation: int) -> Standing:
    """A lane that serves. Raises FramelaneError; then no process of it is left."""
    place = await site.room(blueprint)
    actors: list[Any] = []
    try:
        for rank in range(blueprint.ranks):
            actors.append(site.actor(blueprint, rank, place))
        await together(*(site.in_place(actor.tell.remote(site.telemetry), blueprint) for actor in actors))
        async with asyncio.timeout(site.spec.start_seconds):
            facts = await _started(blueprint, actors)
            await together(*(ready(a.serve.remote(generation, site.owner, facts), blueprint.name) for a in actors))
    except BaseException as error:
        for actor in actors:
            site.kill(actor)
        if isinstance(error, (FramelaneError, TimeoutError)):
            with suppress(LaneLost):  # its node may be gone; the error that led here says more
                await end(actors)
        if isinstance(error, TimeoutError):
            raise LaneLost(f"{blueprint.name} did not start in {site.spec.start_seconds:g} s") from error
        raise
    return Standing(blueprint, tuple(actors), generation, facts)


async def _started(blueprint: Blueprint, actors: Sequence[Any]) -> dict[str, Any]:
    """Have ``actors`` load their models, a denoise group as one, and warm up. Returns what records need to know."""

    async def call(rank: int, method: str, *arguments: Any) -> Any:
        answer = getattr(actors[rank], method).remote(*arguments)
        who = f"{blueprint.name} rank {rank}" if len(actors) > 1 else blueprint.name
        alive = watched(answer, actors[rank], blueprint.spec.stall_seconds, f"{who}, starting,", moving=False)
        return await ready(alive, who)

    ranks = range(len(actors))
    facts: list[dict[str, Any]] = [{}]
    if blueprint.stage == "denoise":
        address = await call(0, "address") if len(actors) > 1 else None
        facts = await together(*(call(rank, "join", address) for rank in ranks))
    await together(*(call(rank, "warm") for rank in ranks))
    return facts[0]


async def ready(answer: Any, lane: str) -> Any:
    """Await a start-up call; what a lane could not start for is raised as it is."""
    try:
        return await answer
    except RayTaskError as error:
        if isinstance(error.cause, FramelaneError):
            raise error.cause from error
        kind = OutOfMemory if is_out_of_memory(error.cause) else LaneLost
        raise kind(f"{lane} could not start: {type(error.cause).__name__}: {error.cause}") from error
    except RayError as error:
        message = str(error).splitlines()
        kind = OutOfMemory if isinstance(error, OutOfMemoryError) else LaneLost
        raise kind(f"{lane} could not start: {message[0]} {message[-1]}") from error

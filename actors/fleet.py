"""The fleet: every lane of a run, started, warmed up, rebuilt when lost, joined by others, and at last taken down.

Nothing is called ready before its warm-up has answered. A group of several ranks has a placement group of its own, so
that they stay together; it is one unit: started, lost and rebuilt as a whole, each time in a new generation. A detached
fleet outlives the program: ``start`` takes over what is there and well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, Protocol

import ray

from actors.adopt import adopt, dismiss, identity, look_around, named_lanes
from actors.blueprints import ROLES, Blueprint, LaneKind, kinds
from actors.fleet_spec import FleetSpec
from actors.lanes import ActorLane, GroupLane
from actors.placement import Site, Standing, build
from actors.processes import draining_nodes, end
from actors.role import WATCH
from actors.watch import together
from gamecraft_core.base.errors import LaneLost, NoRoom, UsageError
from gamecraft_core.base.messages import Stage
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.telemetry import Telemetry
from gamecraft_core.base.tracing import PATIENCE_S

log = logging.getLogger("framelane.fleet")


class Named(Protocol):
    """A lane, as far as the fleet needs to know it."""

    @property
    def name(self) -> str: ...


class Fleet:
    """Lanes that are ready, and by preset what their records must say. Keeps the ports ``Keeper`` and ``Yard``."""

    def __init__(self, site: Site, kinds: Sequence[LaneKind]) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        self.kinds = kinds
        self._site = site
        self._standing: dict[str, Standing] = {}
        self._names: set[str] = set()

    @property
    def lanes(self) -> list[ActorLane | GroupLane]:
        return [each.lane for each in self._standing.values()]

    @property
    def identity(self) -> str | None:
        """Name of a detached fleet, for ``adopt.dismiss``."""
        return self._site.identity

    async def rebuild(self, lane: Named) -> ActorLane | GroupLane:
        """A warm lane in the place of ``lane``, with its name; all that is left of the old one is gone first.

        UsageError where its files are wrong, LaneLost or OutOfMemory where a later try may succeed.
        """
        old = self._standing[lane.name]
        await end(old.actors)
        self._site.actors.difference_update(old.actors)
        new = self._stand(await build(self._site, old.blueprint, old.generation + 1))
        log.info("serves again, generation %d", new.generation, extra={"lane": lane.name})
        return new.lane

    async def another(self, kind: str) -> ActorLane | GroupLane:
        """A lane more of ``kind``, warm, as soon as Ray has room: what waits for it makes an autoscaler add a node.

        Raises as ``rebuild`` does, and NoRoom where none was found in time; then, and when cancelled, nothing is left.
        """
        of = next(each for each in self.kinds if each.name == kind)
        blueprint = next((each for each in (*of.first, *of.others) if each.name not in self._names), None)
        if blueprint is None:
            raise NoRoom(f"{kind}: lanes that still empty have every name")
        self._names.add(blueprint.name)
        try:
            return self._stand(await build(self._site, blueprint, 1)).lane
        except BaseException:
            self._forget(blueprint.name)
            raise

    async def give_back(self, lane: Named) -> None:
        """End the processes of ``lane``, wait until they are gone, and give back its place. LaneLost as ``end``."""
        old = self._standing[lane.name]
        try:
            await end(old.actors)
        finally:
            self._site.actors.difference_update(old.actors)
            self._forget(lane.name)
        log.info("has gone", extra={"lane": lane.name})

    async def leaving(self) -> Set[str]:
        """Names of lanes that have a process on a node that is about to go."""

        def look() -> Set[str]:
            going = draining_nodes()
            return {name for name, each in standing.items() if each.nodes & going} if going else going

        standing = dict(self._standing)
        return await asyncio.to_thread(look)

    def first_to_go(self, lanes: Sequence[Named]) -> Any:
        """The one whose nodes have the fewest other lanes, so that nodes become empty; of equals the last started."""
        crowd = Counter(node for each in self._standing.values() for node in each.nodes)
        by_age = {name: number for number, name in enumerate(self._standing)}

        def rank(lane: Named) -> tuple[int, int]:
            return sum(crowd[node] for node in self._standing[lane.name].nodes), -by_age[lane.name]

        return min(lanes, key=rank)

    async def flush(self) -> None:
        """Have every actor send the spans that it still has; not for long, since most are on their way already."""
        if self._site.telemetry.traces is None:
            return
        calls = [actor.flush.options(concurrency_group=WATCH).remote() for actor in self._site.actors]
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * PATIENCE_S):
                await asyncio.gather(*calls, return_exceptions=True)

    def close(self) -> None:
        """End every actor and give back what was reserved; of a detached fleet, leave what stands."""
        if self._site.identity is None:
            self._site.close()

    async def dismiss(self) -> None:
        """End every actor of this fleet, detached or not, and wait until their processes are gone."""
        actors = list(self._site.actors)
        self._site.close()
        await end(actors)
        if self._site.identity is not None:
            await dismiss(self._site.identity)

    async def start(self) -> None:
        """Have the lanes that a run starts with; of a detached fleet, whatever is there already as it is."""
        there = named_lanes(self._site.identity) if self._site.identity is not None else set()
        found = [each for kind in self.kinds for each in (*kind.first, *kind.others) if each.name in there]
        for each, adopted in zip(found, await together(*(adopt(self._site, each) for each in found)), strict=True):
            if adopted is not None:
                self._stand(adopted)
            elif any(each in kind.others for kind in self.kinds):
                self._site.vacate(each.name)
        missing: list[Blueprint] = []
        for kind in self.kinds:
            successors = sum(each.name in self._standing for each in kind.others)
            absent = [each for each in kind.first if each.name not in self._standing]
            missing += absent[: max(0, len(absent) - successors)]
        await together(*(self._site.room(each) for each in missing))
        await together(*(self._first(each) for each in missing))

    async def _first(self, blueprint: Blueprint) -> None:
        try:
            standing = await build(self._site, blueprint, 1)
        except NoRoom:
            raise
        except LaneLost as error:
            log.warning("is started once more: %s", error, extra={"lane": blueprint.name})
            standing = await build(self._site, blueprint, 2)
        self._stand(standing)

    def _stand(self, new: Standing) -> Standing:
        self._standing[new.blueprint.name] = new
        self._names.add(new.blueprint.name)
        if new.blueprint.stage == "denoise" and new.blueprint.preset is not None:
            self.facts[new.blueprint.preset] = new.facts
        return new

    def _forget(self, name: str) -> None:
        self._standing.pop(name, None)
        self._site.vacate(name)
        self._names.discard(name)


async def start(
    spec: FleetSpec,
    presets: Sequence[Preset],
    output_root: str,
    store_options: Mapping[str, Any],
    roles: Mapping[Stage, type] = ROLES,
    telemetry: Telemetry = Telemetry(),  # noqa: B008 - frozen
) -> Fleet:
    """Start the fleet on the connected cluster; raises the first FramelaneError that a lane met while starting."""
    has_gpus = bool(ray.cluster_resources().get("GPU"))  # type: ignore[no-untyped-call]
    name = None
    if spec.detached:
        name = identity(spec, presets, output_root, store_options)
        look_around(name)
    site = Site(spec, name, has_gpus, ray.get_runtime_context().get_job_id(), telemetry)
    fleet = Fleet(site, kinds(spec, presets, output_root, store_options, roles))
    try:
        await fleet.start()
    except NoRoom as error:
        fleet.close()
        remedy = "choose a smaller fleet, or wait until the cluster is free"
        raise UsageError(error.message, field="fleet", remedy=remedy) from error
    except BaseException:
        fleet.close()
        raise
    log.info("fleet %s is ready: %d lanes%s", spec.name, len(fleet.lanes), f", detached as {name}" if name else "")
    return fleet

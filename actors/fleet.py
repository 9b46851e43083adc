"""The fleet: every lane of a run, started, warmed up, rebuilt when lost, and at last taken down.

Nothing is called ready before its warm-up has answered. A group of several ranks has a placement group of its own, so
that they stay together; it is one unit: started, lost and rebuilt as a whole, each time in a new generation. A detached
fleet outlives the program: ``start`` takes over what is there and well.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ray

from actors.adopt import adopt, dismiss, identity, look_around
from actors.fleet_spec import FleetSpec
from actors.lanes import ActorLane, GroupLane
from actors.placement import ROLES, Blueprint, NoRoom, Site, Standing, blueprints, build
from actors.processes import end
from actors.watch import together
from gamecraft_core.base.errors import LaneLost, UsageError
from gamecraft_core.base.messages import Stage
from gamecraft_core.base.preset import Preset

log = logging.getLogger("framelane.fleet")


class Named(Protocol):
    """A lane, as far as the fleet needs to know it."""

    @property
    def name(self) -> str: ...


class Fleet:
    """Lanes that are ready, and by preset what their records must say. Keeps the port ``Keeper``."""

    def __init__(self, site: Site) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        self._site = site
        self._standing: dict[str, Standing] = {}

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
        log.info("%s serves again, generation %d", lane.name, new.generation)
        return new.lane

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

    async def start(self, blueprints: Sequence[Blueprint]) -> None:
        """Have all these lanes; those of a detached fleet that are there already as they are."""
        if self._site.identity is not None:
            found = await together(*(adopt(self._site, each) for each in blueprints))
            for each in found:
                if each is not None:
                    self._stand(each)
        missing = [each for each in blueprints if each.name not in self._standing]
        await together(*(self._site.room(each) for each in missing))
        await together(*(self._first(each) for each in missing))

    async def _first(self, blueprint: Blueprint) -> None:
        try:
            standing = await build(self._site, blueprint, 1)
        except NoRoom:
            raise
        except LaneLost as error:
            log.warning("%s is started once more: %s", blueprint.name, error)
            standing = await build(self._site, blueprint, 2)
        self._stand(standing)

    def _stand(self, new: Standing) -> Standing:
        self._standing[new.blueprint.name] = new
        if new.blueprint.stage == "denoise" and new.blueprint.preset is not None:
            self.facts[new.blueprint.preset] = new.facts
        return new


async def start(
    spec: FleetSpec,
    presets: Sequence[Preset],
    output_root: str,
    store_options: Mapping[str, Any],
    roles: Mapping[Stage, type] = ROLES,
) -> Fleet:
    """Start the fleet on the connected cluster; raises the first FramelaneError that a lane met while starting."""
    has_gpus = bool(ray.cluster_resources().get("GPU"))  # type: ignore[no-untyped-call]
    name = None
    if spec.detached:
        name = identity(spec, presets, output_root, store_options)
        look_around(name)
    fleet = Fleet(Site(spec, name, has_gpus, ray.get_runtime_context().get_job_id()))
    try:
        await fleet.start(blueprints(spec, presets, output_root, store_options, roles))
    except NoRoom as error:
        fleet.close()
        remedy = "choose a smaller fleet, or wait until the cluster is free"
        raise UsageError(error.message, field="fleet", remedy=remedy) from error
    except BaseException:
        fleet.close()
        raise
    log.info("fleet %s is ready: %d lanes%s", spec.name, len(fleet.lanes), f", detached as {name}" if name else "")
    return fleet

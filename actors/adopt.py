"""A detached fleet: how its actors are found again, taken over warm, or ended.

A control plane that dies leaves its orders behind: those that wait are refused, one that runs goes on, and its
answer reaches nobody. A group is taken over when all of its ranks answer, are of one generation, and meet in a
collective; if a rank still works, new orders line up behind that, and the lane's watch judges whether it gets on.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import get_placement_group, placement_group_table, remove_placement_group

from actors.blueprints import Blueprint
from actors.fleet_spec import FleetSpec
from actors.placement import Site, Standing
from actors.processes import creator_of, end, is_running
from actors.role import WATCH, Presence
from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.ids import digest
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.version import code_version

log = logging.getLogger("framelane.fleet")

_PREFIX = "framelane-"

#: How long a healthy actor may take to say who it is, and how long an idle group to meet.
_ANSWER_TIMEOUT_S = 5.0
_MEET_TIMEOUT_S = 3.0
#: How long Ray may take to notice that a driver has died.
_END_HEARD_S = 3.0


def identity(spec: FleetSpec, presets: Sequence[Preset], output_root: str, store_options: Mapping[str, Any]) -> str:
    """The name of a detached fleet: equal for the same fleet, presets, output and code, so that its lanes fit.

    How far and when the fleet grows is no part of it. Weights count by where they lie; a change in place, or of
    uncommitted code, wants ``dismiss``.
    """
    growth = {role: {"max_lanes"} for role in ("text", "encode", "decode", "write")}
    lanes = spec.model_dump(mode="json", exclude={**growth, "denoise": {"__all__": {"max_groups"}}, "elastic": True})
    what = [lanes, [preset.model_dump(mode="json") for preset in presets]]
    return _PREFIX + digest([what, output_root, dict(store_options), code_version()])


def look_around(fleet: str) -> None:
    """Refuse to name actors where nobody would find them, and tell of other fleets that hold room."""
    namespace = ray.get_runtime_context().namespace
    with suppress(ValueError):
        uuid.UUID(namespace)
        raise UsageError(
            "a detached fleet in an anonymous Ray namespace could not be found again",
            field="fleet.detached",
            remedy="connect with ray.init(namespace=...)",
        )
    for other in standing():
        if other != fleet:
            log.warning("detached fleet %s stands here, too: actors.adopt.dismiss ends it if nobody needs it", other)


def standing() -> list[str]:
    """Identities of the detached fleets in this namespace, or of what is left of them."""
    names = ray.util.list_named_actors() + [row["name"] for row in _places()]
    return sorted({name.partition("/")[0] for name in names if name.startswith(_PREFIX)})


def named_lanes(fleet: str) -> set[str]:
    """Names of the lanes of which something stands, or is left, in the detached fleet of identity ``fleet``."""
    names = ray.util.list_named_actors() + [row["name"] for row in _places()]
    return {name.split("/")[1] for name in names if name.startswith(f"{fleet}/")}


async def dismiss(fleet: str) -> int:
    """End the detached fleet of identity ``fleet``; returns how many actors it had. Whoever uses it loses its lanes."""
    actors = [ray.get_actor(name) for name in ray.util.list_named_actors() if name.startswith(f"{fleet}/")]
    await end(actors)
    for row in _places():
        if row["name"].startswith(f"{fleet}/"):
            remove_placement_group(get_placement_group(row["name"]))
    return len(actors)


async def adopt(site: Site, blueprint: Blueprint) -> Standing | None:
    """The lane as it stands, or None where it does not: then nothing of it is left but its place.

    UsageError where another control plane uses it.
    """
    actors = [actor for rank in range(blueprint.ranks) if (actor := _find(site.name(blueprint, rank))) is not None]
    if not actors:
        return None
    try:
        first = await _taken_over(site, blueprint, actors)
    except (RayError, TimeoutError, _Unfit) as error:
        reason = str(error) or "no answer"
        log.info("cannot be adopted (%s): it is built anew", reason, extra={"lane": blueprint.name})
        await end(actors)
        return None
    site.actors.update(actors)
    log.info("adopted generation %d, process %d", first.generation, first.pid, extra={"lane": blueprint.name})
    return Standing(blueprint, tuple(actors), first.generation, first.facts)


class _Unfit(Exception):
    """Why a lane cannot be adopted."""


async def _still_running(jobs: set[str]) -> str | None:
    """One of ``jobs`` that runs. Ray hears of a killed driver's end a moment after it."""
    deadline = time.monotonic() + _END_HEARD_S
    while running := next((job for job in jobs if is_running(job)), None):
        if time.monotonic() > deadline:
            return running
        await asyncio.sleep(_END_HEARD_S / 20)
    return None


async def _taken_over(site: Site, blueprint: Blueprint, actors: Sequence[Any]) -> Presence:
    """Have ``actors`` serve this control plane; who the first of them is."""
    if len(actors) < blueprint.ranks:
        raise _Unfit(f"{len(actors)} of {blueprint.ranks} ranks are there")
    present = await _presences(actors)
    first = present[0]
    owners = {each.owner or creator_of(actor) for each, actor in zip(present, actors, strict=True)}
    if other := await _still_running(owners - {site.owner}):
        raise UsageError(
            f"fleet {site.identity} is in use by Ray job {other}",
            field="fleet.detached",
            remedy="stop that program, or give this one another output",
        )
    if not first.generation or any(each.generation != first.generation for each in present):
        raise _Unfit(f"generations {[each.generation for each in present]}")
    await _by_all(actors, "drain", WATCH)
    await _by_all(actors, "tell", WATCH, site.telemetry)
    if not await _meets(site, actors, first):
        present = await _presences(actors)
        if any(each.begun == each.ended or each.begun != present[0].begun for each in present):
            raise _Unfit("its ranks do not meet")
        log.info("still works off an order of its last control plane", extra={"lane": blueprint.name})
    return first


async def _meets(site: Site, actors: Sequence[Any], first: Presence) -> bool:
    """Every rank accepts orders again, and a collective works; False where that takes longer than it should."""
    calls = [actor.serve.remote(first.generation, site.owner, first.facts) for actor in actors]
    if len(actors) > 1:
        calls = [actor.roll_call.remote() for actor in actors]
    waiting = [asyncio.ensure_future(call) for call in calls]
    done, late = await asyncio.wait(waiting, timeout=_MEET_TIMEOUT_S)
    for each in late:
        each.cancel()
    for each in done:
        each.result()
    return not late


async def _presences(actors: Sequence[Any]) -> list[Presence]:
    return await _by_all(actors, "presence", WATCH)


async def _by_all(actors: Sequence[Any], method: str, group: str, *arguments: Any) -> list[Any]:
    calls = [getattr(actor, method).options(concurrency_group=group).remote(*arguments) for actor in actors]
    async with asyncio.timeout(_ANSWER_TIMEOUT_S):
        return list(await asyncio.gather(*calls))


def _find(name: str | None) -> Any:
    try:
        return ray.get_actor(name) if name else None
    except ValueError:
        return None


def _places() -> list[dict[str, Any]]:
    """Placement groups that stand, or want to."""
    return [row for row in placement_group_table().values() if row["state"] != "REMOVED"]

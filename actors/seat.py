"""A seat that one process of a cluster has at a time, and leaves when another asks for it.

Ray Serve has two replicas for a while when it updates one, or moves it off a node that is about to go. Both must not
run the same sessions. Invariants: who has a seat has it alone, for it is an actor of that name; it dies with the
process that took it, so nobody waits for the dead; who loses it leaves, for another may have it at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import ray
from ray.exceptions import ActorAlreadyExistsError, RayActorError

from actors.cluster import NAMESPACE
from gamecraft_core.base.errors import LaneLost

log = logging.getLogger("framelane.seat")

#: The cluster forgets a dead actor's name a moment after its end.
_AGAIN_S = 0.1


class Seat:
    """The actor. Its calls wait, so they are async: many may at once."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()

    async def wanted(self) -> None:
        """Until somebody asks for the seat."""
        await self._wanted.wait()

    async def give(self) -> None:
        """Somebody asks for it: ends, with the actor, when the one who has it has gone."""
        self._wanted.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def seated(of: str, leave: Callable[[], None]) -> AsyncIterator[None]:
    """Have the seat ``of`` something until the block ends; whoever has it now is asked to go, and waited for.

    ``leave`` is called when another asks for it: the block should end soon then. So it should when the seat is lost,
    and with it the right to stay: after the block LaneLost is raised, so that this process is replaced.
    """
    name = f"seat/{hashlib.sha256(of.encode()).hexdigest()[:16]}"
    seat = await _taken(name)
    asked = asyncio.create_task(_asked(seat, leave))
    try:
        yield
    finally:
        ray.kill(seat)
        if not asked.cancel():
            asked.result()


async def _taken(name: str) -> Any:
    made: Any = ray.remote(num_cpus=0, max_restarts=0)(Seat)
    while True:
        try:
            return made.options(name=name, namespace=NAMESPACE).remote()
        except ActorAlreadyExistsError:
            log.info("waiting until the process before has gone")
        with suppress(ValueError, RayActorError):  # it goes, or has gone
            await ray.get_actor(name, namespace=NAMESPACE).give.remote()
        await asyncio.sleep(_AGAIN_S)


async def _asked(seat: Any, leave: Callable[[], None]) -> None:
    try:
        await seat.wanted.remote()
    except RayActorError as error:  # with its node, perhaps, which need not be ours
        leave()
        raise LaneLost(f"the seat is lost: {error}") from error
    leave()

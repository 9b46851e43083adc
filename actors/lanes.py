"""Ray's side of the lane port: orders out to actors, receipts back, Ray's failures turned into verdicts.

Only receipts are awaited; a payload stays where it was made and travels on as a reference. A lane that is lost, for
whatever reason, is given up: nothing of it works on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from actors.role import WATCH, fields, is_out_of_memory
from actors.watch import watched
from gamecraft_core.base.errors import FramelaneError, LaneHung, LaneLost, OutOfMemory, Poisoned, StateLost
from gamecraft_core.base.logs import about
from gamecraft_core.base.messages import Order, Receipt, Stage

log = logging.getLogger("framelane.lanes")

#: How long the other ranks have to answer when one of them refuses a chunk.
_PEERS_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ActorLane:
    """A lane that is one actor."""

    name: str
    stage: Stage
    preset: str | None
    actor: Any
    depth: int
    stall_seconds: float
    speed: float | None = None
    sp_degree: int = 1
    gpus: float = 0.0

    async def run(self, order: Order, payloads: tuple[Any, ...]) -> tuple[Receipt, Any]:
        receipt, payload = self.actor.run.options(num_returns=2).remote(order, *payloads)
        with about(**fields(order), lane=self.name):
            try:
                return await _answer(receipt, self.actor, self.stall_seconds, self.name), payload
            except LaneLost as error:
                _give_up(error, [self.actor])
                raise

    async def progress(self) -> tuple[str, int, int, int] | None:
        """See ``Role.progress``."""
        return await _progress(self.actor, self.name)

    async def learn_preview(self) -> None:
        """See ``Role.learn_preview``."""
        try:
            await self.actor.learn_preview.remote()
        except RayError as error:
            raise verdict(error, self.name) from error

    async def preview(self, latents: Any) -> tuple[bytes, int] | None:
        """See ``Role.preview``."""
        try:
            shown: tuple[bytes, int] | None
            shown = await self.actor.preview.options(concurrency_group=WATCH).remote(latents)
        except RayError as error:
            raise verdict(error, self.name) from error
        return shown


@dataclass(frozen=True, slots=True)
class GroupLane:
    """A denoise group of two or more ranks: one unit, which is lost as a whole."""

    name: str
    preset: str
    ranks: tuple[Any, ...]
    depth: int
    stall_seconds: float
    speed: float | None = None
    stage: Stage = "denoise"
    gpus: float = 0.0

    @property
    def sp_degree(self) -> int:
        return len(self.ranks)

    async def run(self, order: Order, payloads: tuple[Any, ...]) -> tuple[Receipt, Any]:
        with about(**fields(order), lane=self.name):
            return await self._run(order, payloads)

    async def _run(self, order: Order, payloads: tuple[Any, ...]) -> tuple[Receipt, Any]:
        answers = [rank.run.options(num_returns=2).remote(order, *payloads) for rank in self.ranks]
        waiting = [
            asyncio.create_task(_answer(receipt, rank, self.stall_seconds, f"rank {number}"))
            for number, (rank, (receipt, _)) in enumerate(zip(self.ranks, answers, strict=True))
        ]
        try:
            errors = await self._errors(waiting)
        finally:
            for each in waiting:
                each.cancel()
        if not errors:
            return waiting[0].result(), answers[0][1]
        lost = [error for error in errors if isinstance(error, LaneLost)]
        if not lost:
            raise errors[0]
        kind = next((kind for kind in (OutOfMemory, LaneHung) if any(isinstance(e, kind) for e in lost)), LaneLost)
        error = kind(f"{self.name}: " + "; ".join(dict.fromkeys(each.message for each in lost)))
        _give_up(error, self.ranks)
        raise error from lost[0]

    async def progress(self) -> tuple[str, int, int, int] | None:
        """That of the first rank: they go in step."""
        return await _progress(self.ranks[0], self.name)

    async def _errors(self, waiting: list[asyncio.Task[Receipt]]) -> list[FramelaneError]:
        """What went wrong with the order: nothing, what every rank says of it, or how the group was lost."""
        _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        errors = _raised(waiting)
        if pending and not any(_is_sudden(error) for error in errors):
            # All met the same input, or the same stuck collective: whoever can say something does so now.
            hung = any(isinstance(error, LaneHung) for error in errors)
            seconds = min(self.stall_seconds / 2, _PEERS_TIMEOUT_S) if hung else _PEERS_TIMEOUT_S
            _, pending = await asyncio.wait(pending, timeout=seconds)
            errors = _raised(waiting)
        if pending and not any(isinstance(error, LaneLost) for error in errors):
            errors.append(LaneLost(f"one rank answers '{errors[0]}', another does not"))
        return errors


def _is_sudden(error: FramelaneError) -> bool:
    """A rank is gone: its peers, which may wait for it, have nothing to add."""
    return isinstance(error, LaneLost) and not isinstance(error, LaneHung)


def _raised(waiting: list[asyncio.Task[Receipt]]) -> list[FramelaneError]:
    """What has gone wrong so far; what is no verdict is raised."""
    errors = [error for each in waiting if each.done() and (error := each.exception()) is not None]
    for error in errors:
        if not isinstance(error, FramelaneError):
            raise error
    return [error for error in errors if isinstance(error, FramelaneError)]


def _give_up(error: FramelaneError, actors: Iterable[Any]) -> None:
    log.warning("is given up: %s", error)
    for actor in actors:
        with suppress(RayError, ValueError):
            ray.kill(actor)


async def _answer(receipt: Awaitable[Receipt | FramelaneError], actor: Any, stall_seconds: float, who: str) -> Receipt:
    """The receipt, or what went wrong as an error with a verdict."""
    try:
        answer = await watched(receipt, actor, stall_seconds, who)
    except RayError as error:
        raise verdict(error, who) from error
    if isinstance(answer, FramelaneError):
        raise answer
    return answer


async def _progress(actor: Any, who: str) -> tuple[str, int, int, int] | None:
    try:
        step: tuple[str, int, int, int] | None = await actor.progress.options(concurrency_group=WATCH).remote()
    except RayError as error:
        raise verdict(error, who) from error
    return step


def verdict(error: RayError, who: str) -> FramelaneError:
    """What Ray's error about an order to ``who`` means for the order."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, ObjectLostError):
            return StateLost(f"{who}: a payload is gone: {type(cause).__name__}")
        if is_out_of_memory(cause):
            return OutOfMemory(f"{who}: {cause}")
        log.error("%s met an error of its own: %s", who, error)
        return Poisoned(f"{who}: {type(cause).__name__}: {cause}", remedy="see the lane's log")
    if isinstance(error, OutOfMemoryError):
        return OutOfMemory(f"{who} was ended because its node ran out of memory")
    reason = str(error).splitlines()[0]
    return LaneLost(f"{who} died: {reason}" if isinstance(error, RayActorError) else f"{who}: {reason}")

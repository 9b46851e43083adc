"""Ray's side of the lane port: orders out to actors, receipts back, Ray's failures turned into verdicts.

Only receipts are awaited; a payload stays where it was made and travels on as a reference.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from gamecraft_core.base.errors import FramelaneError, LaneLost, Poisoned
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
    sp_degree: int = 1

    async def run(self, order: Order, payloads: tuple[Any, ...]) -> tuple[Receipt, Any]:
        receipt, payload = self.actor.run.options(num_returns=2).remote(order, *payloads)
        return await _answer(receipt, self.name), payload


@dataclass(frozen=True, slots=True)
class GroupLane:
    """A denoise group of two or more ranks: one unit, which is lost as a whole."""

    name: str
    preset: str
    ranks: tuple[Any, ...]
    depth: int
    stage: Stage = "denoise"

    @property
    def sp_degree(self) -> int:
        return len(self.ranks)

    async def run(self, order: Order, payloads: tuple[Any, ...]) -> tuple[Receipt, Any]:
        answers = [rank.run.options(num_returns=2).remote(order, *payloads) for rank in self.ranks]
        waiting = [asyncio.create_task(_answer(receipt, self.name)) for receipt, _ in answers]
        _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        if pending and not any(isinstance(error, LaneLost) for error in _errors(waiting)):
            # All ranks met the same input; unless one of them is stuck in a collective, they answer now.
            _, pending = await asyncio.wait(pending, timeout=_PEERS_TIMEOUT_S)
        errors = _errors(waiting)
        if not errors:
            return waiting[0].result(), answers[0][1]
        for each in pending:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        error = next((each for each in errors if isinstance(each, LaneLost)), errors[0])
        if not pending and not isinstance(error, LaneLost):
            raise error
        log.warning("group %s is given up: %s", self.name, error)
        for rank in self.ranks:
            ray.kill(rank)
        raise LaneLost(f"a rank of {self.name} failed: {error}") from error


def _errors(waiting: list[asyncio.Task[Receipt]]) -> list[BaseException]:
    """What has gone wrong so far."""
    return [error for each in waiting if each.done() and (error := each.exception()) is not None]


async def _answer(receipt: Awaitable[Receipt | FramelaneError], lane: str) -> Receipt:
    """The receipt, or what went wrong as an error with a verdict."""
    try:
        answer = await receipt
    except RayTaskError as error:
        log.exception("%s met an error of its own", lane)
        cause = error.cause
        raise Poisoned(f"{lane}: {type(cause).__name__}: {cause}", remedy="see the lane's log") from error
    except RayActorError as error:
        raise LaneLost(f"{lane} died: {str(error).splitlines()[0]}") from error
    except RayError as error:
        raise LaneLost(f"{lane}: {type(error).__name__}: {error}") from error
    if isinstance(answer, FramelaneError):
        raise answer
    return answer

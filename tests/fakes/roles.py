"""Actors without models, for what is true of any: they start in no time and do what their orders' prompts say.

``VERB SECONDS``: ``work`` does something all the time, ``still`` does nothing, ``memory`` runs out of it, ``array``
makes a payload of SECONDS megabytes. What options name under ``start`` happens to denoise ranks when they warm up, and
each process leaves its number in the folder that they name.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actors.denoise import DenoiseRank
from actors.role import Role, answering
from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.messages import Receipt, Stage, TextOrder
from gamecraft_core.parallel.layout import Layout
from tests.fakes.lanes import facts_of

_TICK_S = 0.05


class LightActor(Role):
    """A lane of any stage, or a rank of a group whose ranks need nothing from each other."""

    def __init__(self, lane: str, *arguments: Any) -> None:
        stage: Any = lane.partition("-")[0]
        super().__init__(stage, lane)
        self._options: Mapping[str, Any] = next(each for each in arguments if isinstance(each, dict))
        self._layout = next((each for each in arguments if isinstance(each, Layout)), Layout())

    def address(self) -> str:
        return ""

    def join(self, address: str | None) -> dict[str, Any]:
        return {"hardware": "none", "weights_fingerprint": "none"}

    def roll_call(self) -> tuple[int, ...]:
        return (self._generation,) * self._layout.world

    def imported(self, package: str) -> list[str]:
        """What this process has imported of ``package``."""
        return [name for name in sys.modules if name.partition(".")[0] == package]

    def warm(self) -> dict[str, Any]:
        if folder := self._options.get("folder"):
            Path(folder, str(os.getpid())).touch()
        match self._options.get("start") if self._stage == "denoise" else None:
            case "error":
                raise RuntimeError("no such device")
            case "weights":
                raise WeightsError("truncated", field="weights.dit")
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
        return self.ping()

    @answering
    def run(self, order: TextOrder, *payloads: Any) -> tuple[Receipt, Any]:
        verb, _, amount = order.prompt.partition(" ")
        return self.carry(order, lambda: (self._do(verb, float(amount or 0)), {"given": len(payloads)}))

    def _do(self, verb: str, amount: float) -> Any:
        if verb == "memory":
            raise MemoryError("too many frames")
        if verb == "array":
            return np.zeros(int(amount * 2**18), np.float32)
        end = time.monotonic() + amount
        while (left := end - time.monotonic()) > 0:
            if verb == "work":
                self.moved("a bit more")
            time.sleep(min(left, _TICK_S))
        return None


class ChainedActor(LightActor):
    """A lane of any stage whose orders take the seconds that options name, and whose latents tell what they came from.

    An order's latents are ``link`` of those before it, so a payload that is wrong once is wrong for ever.
    """

    @answering
    def run(self, order: Any, *payloads: Any) -> tuple[Receipt, Any]:
        return self.carry(order, lambda: self._linked(order, payloads))

    def _linked(self, order: Any, payloads: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        self._do("work", self._options["seconds"].get(self._stage, 0.0))
        facts = facts_of(order)
        if self._stage == "encode":
            return first_link(order.session_id), facts
        if self._stage != "denoise":
            return payloads[-1] if payloads else None, facts
        latents = link(payloads[-1], order.index)
        return latents, facts | {"latents_sha256": latents.hex()}


def first_link(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode()).digest()


def link(before: bytes, index: int) -> bytes:
    """What stands for the latents of chunk ``index`` after those of ``before``."""
    return hashlib.sha256(before + index.to_bytes(4, "big")).digest()


class CountedRank(DenoiseRank):
    """A rank that knows how often it has loaded its weights."""

    loads = 0

    def join(self, address: str | None) -> dict[str, Any]:
        self.loads += 1
        return super().join(address)

    def loaded(self) -> int:
        return self.loads


#: No models anywhere.
LIGHT: dict[Stage, type] = dict.fromkeys(("text", "encode", "denoise", "decode", "write"), LightActor)

#: No models, but latents.
CHAINED: dict[Stage, type] = dict.fromkeys(LIGHT, ChainedActor)

#: Models in the denoise ranks only.
DENOISING: dict[Stage, type] = LIGHT | {"denoise": CountedRank}


def script(prompt: str) -> TextOrder:
    """An order for a light actor."""
    return TextOrder(session_id="s", prompt=prompt, negative_prompt=None)

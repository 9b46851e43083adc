"""Fleets for the tests of healing: started small on the connected cluster, and asked about their processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import numpy as np
import ray

from actors import fleet
from actors.fleet_spec import FleetSpec
from actors.lanes import ActorLane, GroupLane
from actors.role import WATCH
from gamecraft_core.base.messages import DenoiseOrder, FloatArray, Stage, TextPayload, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl
from jobs.config import resolve
from tests.fakes.roles import LIGHT
from tests.ray.runs import SMALL

Lane = ActorLane | GroupLane

#: Long enough for a starting process on a busy machine to be heard of, short enough to wait for.
STALL_S = 5.0

#: Steps of a denoise that is to be caught at work: what precedes its first step (a table of all of them) must not look
#: like a stall on a busy machine.
LONG = 300

_END_TIMEOUT_S = 15.0


class World:
    """A fleet and a loop to talk to it; closes both."""

    def __init__(
        self,
        spec: FleetSpec,
        roles: Mapping[Stage, type] = LIGHT,
        options: Mapping[str, Any] | None = None,
        root: str = "memory://tests",
    ) -> None:
        self.loop = asyncio.new_event_loop()
        try:
            self.fleet = self.wait(fleet.start(spec, [small_preset()], root, options or {}, roles))
        except BaseException:
            self.loop.close()
            raise

    def __enter__(self) -> World:
        return self

    def __exit__(self, *error: object) -> None:
        self.fleet.close()
        self.loop.close()

    def wait(self, answer: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(answer)

    def lane(self, stage: Stage) -> Lane:
        lanes: list[Lane] = self.fleet.lanes
        return next(lane for lane in lanes if lane.stage == stage)

    def interrupted(self, lane: Lane, order: Any, payloads: tuple[Any, ...], pid: int, number: int) -> Any:
        """Carry out ``order`` on ``lane``; once it is at work, process ``pid`` gets signal ``number``."""

        async def both() -> Any:
            running = asyncio.create_task(lane.run(order, payloads))
            await at_work(lane, running)
            os.kill(pid, number)
            return await running

        return self.wait(both())


async def at_work(lane: Lane, running: asyncio.Task[Any]) -> None:
    """Until every actor of ``lane`` has begun and done something of ``running``, its only order."""

    async def moves() -> int:
        pulses = [actor.pulse.options(concurrency_group=WATCH).remote() for actor in actors(lane)]
        return min(int(pulse.moves) for pulse in await asyncio.gather(*pulses))

    before = await moves()
    while not running.done() and await moves() < before + 3:
        pass  # each look is a round trip


def actors(lane: Lane) -> tuple[Any, ...]:
    return lane.ranks if isinstance(lane, GroupLane) else (lane.actor,)


def pids(lane: Lane) -> list[int]:
    return [answer["pid"] for answer in ray.get([actor.ping.remote() for actor in actors(lane)])]


def alive(pid: int) -> bool:
    """There is such a process, running or stopped (a zombie has ended)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def await_end(numbers: Iterable[int]) -> None:
    """Until no such process is there; a node may take seconds to end a stopped one."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    while left := [pid for pid in numbers if alive(pid)]:
        assert time.monotonic() < deadline, f"processes {left} are still there"
        time.sleep(0.05)


def small_preset() -> Preset:
    return resolve("tiny-gamecraft", "laptop", SMALL).preset


def denoise_order(steps: int = 2) -> DenoiseOrder:
    return DenoiseOrder(
        session_id="s",
        index=0,
        control=ActionControl("w", 0.2),
        seed=1,
        steps=steps,
        guidance=1.0,
        shift=5.0,
        height=32,
        width=48,
        chunk_frames=33,
    )


def denoise_payloads() -> tuple[TextPayload, FloatArray]:
    """Text states and an image's latents as good as any others."""
    draw = np.random.default_rng(0)
    dit = small_preset().dit
    states = TextStates(
        draw.standard_normal((7, dit.text_states_dim), np.float32),
        draw.standard_normal(dit.text_states_dim_2, np.float32),
    )
    return TextPayload(states), draw.standard_normal((16, 1, 4, 6), np.float32)

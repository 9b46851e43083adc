"""Real lanes keep the port's promises: receipts, verdicts, ping, drain, and a group that is lost as one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import ray

from actors import fleet
from actors.fleet_spec import FleetSpec, GroupSpec
from actors.lanes import ActorLane, GroupLane
from gamecraft_core.base.errors import BadInput, LaneLost, Poisoned
from gamecraft_core.base.messages import (
    ChunkRecord,
    DecodeOrder,
    DenoiseOrder,
    EncodeOrder,
    Receipt,
    Stage,
    TextOrder,
    WriteOrder,
)
from gamecraft_core.base.spec import ActionControl, Start
from jobs.config import resolve
from tests.ray.runs import INPUTS, SMALL
from tests.servers.cluster import ACCELERATOR, RayCluster

pytestmark = pytest.mark.ray

Lane = ActorLane | GroupLane


class World:
    """A fleet with a group of two and one of one, and a loop to talk to it."""

    def __init__(self, root: Path, loop: asyncio.AbstractEventLoop) -> None:
        config = resolve("tiny-gamecraft", "laptop", SMALL)
        groups = (GroupSpec(sp_degree=2, accelerator=ACCELERATOR), GroupSpec(accelerator=ACCELERATOR, speed=3.0))
        spec = FleetSpec(name="test", denoise=groups)
        self.loop = loop
        self.fleet = self.wait(fleet.start(spec, [config.preset], str(root), {}))

    def wait(self, answer: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(answer)

    def lane(self, stage: Stage, sp_degree: int = 1) -> Lane:
        lanes: list[Lane] = self.fleet.lanes
        return next(lane for lane in lanes if lane.stage == stage and lane.sp_degree == sp_degree)


@pytest.fixture(scope="module")
def world(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    loop = asyncio.new_event_loop()
    made = World(tmp_path_factory.mktemp("store"), loop)
    yield made
    made.fleet.close()
    loop.close()


def text_order(prompt: str = "fog") -> TextOrder:
    return TextOrder(session_id="s", prompt=prompt, negative_prompt=None)


def encode_order(name: str) -> EncodeOrder:
    start = Start("image", f"file://{INPUTS / name}")
    return EncodeOrder(session_id="s", start=start, height=32, width=48, chunk_frames=33, seed=1)


def denoise_order(index: int = 0) -> DenoiseOrder:
    control = ActionControl("w", 0.2)
    sizes = {"steps": 2, "guidance": 1.0, "shift": 5.0, "height": 32, "width": 48, "chunk_frames": 33}
    return DenoiseOrder(session_id="s", index=index, control=control, seed=1, **sizes)  # type: ignore[arg-type]


def write_order(latents_sha256: str) -> WriteOrder:
    record = ChunkRecord(
        index=0,
        start=0,
        end=33,
        control={"action": "w", "speed": 0.2},
        seed=1,
        sp_degree=1,
        timings={},
        latents_uri=None,
        latents_sha256=latents_sha256,
    )
    return WriteOrder(session_id="s", index=0, identity="i", history_sha256="", record=record)


def test_a_chunk_passes_through_every_role(world: World) -> None:
    """Receipts say who and when; payloads go from lane to lane as references."""
    receipts = []
    text, states = world.wait(world.lane("text").run(text_order(), ()))
    encoded, history = world.wait(world.lane("encode").run(encode_order("harbour.png"), ()))
    receipts += [text, encoded]
    for degree in (2, 1):
        receipt, latents = world.wait(world.lane("denoise", degree).run(denoise_order(), (states, history)))
        receipts.append(receipt)
        assert len(receipt.facts["latents_sha256"]) == 64
    decode = DecodeOrder(session_id="s", index=0, start_frame=0, frames=33, height=32, width=48, fps=25)
    decoded, fragment = world.wait(world.lane("decode").run(decode, (latents,)))
    written, _ = world.wait(world.lane("write").run(write_order(receipt.facts["latents_sha256"]), (fragment, latents)))
    receipts += [decoded, written]
    assert [r.stage for r in receipts] == ["text", "encode", "denoise", "denoise", "decode", "write"]
    assert all(r.session_id == "s" and r.started <= r.ended and r.facts["memory_bytes"] > 0 for r in receipts)
    assert [a.ended <= b.started for a, b in pairwise(receipts)] == [True] * 5
    assert decoded.started < decoded.facts["decoded"] <= decoded.ended


def test_lanes_are_placed_by_accelerator_and_told_how_fast_they_are(world: World) -> None:
    assert [world.lane("denoise", degree).speed for degree in (1, 2)] == [3.0, None]
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    left = ray.available_resources()  # type: ignore[no-untyped-call]
    name = f"accelerator_type:{ACCELERATOR}"
    assert there[name] - left[name] == pytest.approx(0.003), "three ranks touch it"


def test_two_orders_at_once_are_both_answered(world: World) -> None:
    lane = world.lane("denoise", 2)
    _, states = world.wait(world.lane("text").run(text_order(), ()))
    _, history = world.wait(world.lane("encode").run(encode_order("forest.png"), ()))

    async def both() -> list[tuple[Receipt, Any]]:
        return list(await asyncio.gather(*(lane.run(denoise_order(), (states, history)) for _ in range(2))))

    (first, _), (second, _) = world.wait(both())
    assert first.facts["latents_sha256"] == second.facts["latents_sha256"]
    assert first.ended <= second.started or second.ended <= first.started


def test_a_bad_request_is_refused_and_the_lane_goes_on(world: World) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        world.wait(world.lane("encode").run(encode_order("nowhere.png"), ()))
    world.wait(world.lane("encode").run(encode_order("harbour.png"), ()))


def test_an_error_of_our_own_sets_the_input_aside(world: World) -> None:
    wrong = ray.put(np.zeros((16, 1, 3, 3), np.float32))
    _, states = world.wait(world.lane("text").run(text_order(), ()))
    with pytest.raises(Poisoned, match="ValueError"):
        world.wait(world.lane("denoise").run(denoise_order(), (states, wrong)))


def test_ping_and_drain(world: World) -> None:
    lane = world.lane("text")
    assert isinstance(lane, ActorLane)
    answer = ray.get(lane.actor.ping.remote())
    assert answer["lane"] == lane.name
    assert answer["memory_bytes"] > 0
    ray.get(lane.actor.drain.remote())
    with pytest.raises(LaneLost, match="draining"):
        world.wait(lane.run(text_order(), ()))


def test_a_killed_actor_is_a_lost_lane(world: World) -> None:
    lane = world.lane("encode")
    assert isinstance(lane, ActorLane)
    os.kill(ray.get(lane.actor.ping.remote())["pid"], signal.SIGKILL)
    with pytest.raises(LaneLost, match="died"):
        world.wait(lane.run(encode_order("harbour.png"), ()))


def test_a_group_that_loses_a_rank_is_given_up_as_one(world: World) -> None:
    lane = world.lane("denoise", 2)
    assert isinstance(lane, GroupLane)
    os.kill(ray.get(lane.ranks[1].ping.remote())["pid"], signal.SIGKILL)
    states, history = ray.put(None), ray.put(None)
    with pytest.raises(LaneLost, match="rank 1 died"):
        world.wait(lane.run(denoise_order(), (states, history)))
    with pytest.raises(ray.exceptions.RayActorError):
        ping_for_ever(lane.ranks[0])  # Ray kills in its own time


def ping_for_ever(actor: Any) -> NoReturn:
    while True:
        ray.get(actor.ping.remote())

"""Previews under a virtual clock: who gets them, when, and that nothing waits for them."""

from __future__ import annotations

import base64
from typing import Any
from uuid import uuid4

import pytest

from gamecraft_core.base.errors import LaneLost
from gamecraft_core.base.messages import DecodeOrder, Order
from gamecraft_core.base.store import open_store
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import Upload
from tests.fakes.callers import ASKED, ME, begin, run, until
from tests.fakes.studio import Studio, StudioLane, picture
from tests.fakes.world import usual


def studio(**changes: Any) -> Studio:
    return Studio(open_store(f"memory://{uuid4().hex}"), **changes)


def decoders(of: Studio) -> list[StudioLane]:
    return [lane for lane in of.lanes if lane.stage == "decode"]


def kinds_of(heard: list[dict[str, Any]], chunk: int) -> list[str]:
    return [e["type"] for e in heard if e.get("chunk") == chunk and e["type"] in ("denoised", "preview", "decoded")]


def test_a_preview_comes_between_denoise_and_decode() -> None:
    async def play(world: Studio) -> None:
        for lane in decoders(world):
            lane.preview_s = 0.125
        name = await begin(world, "w d")
        heard: list[dict[str, Any]] = []
        while kinds_of(heard, 1)[-1:] != ["decoded"]:
            heard += await until(world, name, "decoded")
        for chunk in (0, 1):
            assert kinds_of(heard, chunk)[:3] == ["denoised", "preview", "decoded"]
        shown = next(event for event in heard if event["type"] == "preview")
        assert shown["frames"] == 2
        assert base64.b64decode(shown["image"].removeprefix("data:image/jpeg;base64,")).startswith(b"\xff\xd8")
        times = {event["type"]: event["at"] for event in heard if event.get("chunk") == 0}
        assert times["preview"] == pytest.approx(times["denoised"] + 0.125)
        assert times["decoded"] == pytest.approx(times["denoised"] + 1.5), "the decode waited for nothing"

    run(studio(), play)


def test_a_feed_keeps_one_preview() -> None:
    async def play(world: Studio) -> None:
        name = await begin(world, "w d a")
        await until(world, name, "stored")
        await world.service.finish(name, ME)
        await until(world, name, "committed")
        live = world.registry.find(name)
        assert live is not None
        kept = live.feed.after(int(live.created * 1000)) or []
        assert [event.facts["chunk"] for event in kept if event.kind == "preview"] == [2]

    run(studio(), play)


def test_a_preview_that_is_too_late_is_not_told() -> None:
    async def play(world: Studio) -> None:
        for lane in decoders(world):
            lane.preview_s = 2.0
        name = await begin(world, "w d")
        heard = await until(world, name, "stored")
        await world.service.finish(name, ME)
        heard += await until(world, name, "committed")
        assert "decoded" in [event["type"] for event in heard]
        assert "preview" not in [event["type"] for event in heard]
        assert [lane.previewed for lane in decoders(world)] == [2]

    run(studio(), play)


def test_what_nobody_plays_has_none() -> None:
    async def play(world: Studio) -> None:
        cells = {**ASKED, "actions": "w d"}
        name = (await world.service.create(cells, ME, Upload("image", picture()), played=False))["id"]
        heard = await until(world, name, "committed")
        assert "preview" not in [event["type"] for event in heard]
        assert [lane.previewed for lane in decoders(world)] == [0]

    run(studio(), play)


def test_a_service_can_do_without() -> None:
    async def play(world: Studio) -> None:
        name = await begin(world, "w")
        heard = await until(world, name, "stored")
        assert "preview" not in [event["type"] for event in heard]

    run(studio(service=ServiceLimits(previews=False)), play)


def test_lanes_take_turns_and_a_lost_one_is_asked_no_more() -> None:
    fault = [LaneLost("decode-1 died")]

    def behaviour(order: Order) -> Any:
        return fault.pop() if fault and isinstance(order, DecodeOrder) and order.index == 2 else usual(order)

    async def play(world: Studio) -> None:
        name = await begin(world, "w d a w")
        asked = []
        for _ in range(4):
            await until(world, name, "stored")
            asked.append({lane.name: lane.previewed for lane in decoders(world)})
        (lost,) = (lane for lane in decoders(world) if all(getattr(order, "index", 0) < 2 for order, _, _ in lane.log))
        (left,) = (lane for lane in decoders(world) if lane is not lost)
        assert set(asked[1].values()) == {1}, "one each"
        assert asked[3] == {lost.name: asked[2][lost.name], left.name: asked[2][left.name] + 1}

    run(studio(behaviour=behaviour, stages=("text", "encode", "denoise", "decode", "decode", "write")), play)

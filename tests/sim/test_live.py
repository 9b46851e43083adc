"""The service under a virtual clock: what it makes, what it tells, and what is left when it is gone."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any, cast
from uuid import uuid4

import pytest

from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.messages import DecodeOrder, Order
from gamecraft_core.base.store import Inspectable, Store, open_store
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.audit import Kind
from gamecraft_core.media.fragment import probe
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import Conflict, NoSuchSession
from tests.fakes.callers import ME, begin, film, run, until
from tests.fakes.outputs import found, look, run_record
from tests.fakes.studio import Studio
from tests.fakes.world import usual


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid4().hex}")


def test_a_session_from_its_beginning_to_its_video(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w d")
        heard = await until(studio, name, "stored")
        await studio.service.control(name, ME, "a", None)
        await studio.service.finish(name, ME)
        heard += await until(studio, name, "committed")
        kinds = [event["type"] for event in heard]
        assert kinds[0] == "state"
        assert heard[0]["session"]["chunks"] == {"asked": 2, "shown": 0, "durable": 0}
        assert "denoising" in kinds
        assert {"encoding", "denoised", "decoded", "stored"} <= set(kinds)
        assert [event["seq"] for event in heard] == sorted(event["seq"] for event in heard)
        video = await film(studio, name)
        facts = probe(video)
        assert (facts.frames, facts.fps, facts.monotonic) == (99, Fraction(25), True)
        init = await studio.service.init(name, ME)
        assert init.codec.startswith("avc1.")
        pieces = [await studio.service.segment(name, ME, index) for index in range(3)]
        assert b"".join([init.data, *pieces]) == video
        records = await studio.service.records(name, ME)
        assert [chunk["control"]["action"] for chunk in records["chunks"]] == ["w", "d", "a"]
        assert (await studio.service.describe(name, ME))["status"] == "committed"

    run(Studio(store), play)
    assert not list(store.list(layout.STAGING))


def test_the_doctor_finds_a_service_healthy_and_the_video_of_a_deleted_session(store: Store) -> None:
    async def play(studio: Studio) -> None:
        names = [await begin(studio, actions) for actions in ("w", "w d", "w")]
        await begin(studio)
        for name in names:
            await studio.service.finish(name, ME)
            await until(studio, name, "committed")
        assert look(kept).healthy
        await studio.service.delete(names[0], ME)
        assert look(kept).healthy, "its video is that of the third, too"
        await studio.service.delete(names[1], ME)

    claim.claim(store, run_record("running"))
    kept = cast(Inspectable, store)
    run(Studio(store), play)
    assert set(found(look(kept))) == {Kind.VIDEO}


def test_every_piece_comes_from_the_store_when_memory_has_none(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w d")
        await until(studio, name, "stored")
        first = await studio.service.segment(name, ME, 0)
        await studio.service.finish(name, ME)
        await until(studio, name, "committed")
        assert await studio.service.segment(name, ME, 0) == first
        init = await studio.service.init(name, ME)
        second = await studio.service.segment(name, ME, 1)
        assert init.data + first + second == await film(studio, name)
        await asyncio.sleep(2 * studio.service_limits.linger_seconds)
        assert studio.registry.find(name) is None
        assert (await studio.service.init(name, ME)).data == init.data
        assert await studio.service.segment(name, ME, 1) == second

    run(Studio(store, service=ServiceLimits(media_bytes=0)), play)


def test_a_newcomers_first_picture_goes_before_what_another_has_in_hand(store: Store) -> None:
    async def play(studio: Studio) -> None:
        early = await begin(studio, "w*20")
        await until(studio, early, "stored")
        late = await begin(studio, "w")
        await until(studio, late, "stored")
        described = await studio.service.describe(early, ME)
        assert described["chunks"]["durable"] <= 2, "the chunk that it plays, and the one that was under way"

    run(Studio(store), play)


def test_progress_is_a_state_that_only_listeners_cost(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        heard = await until(studio, name, "denoised")
        steps = [event["step"] for event in heard if event["type"] == "denoising"]
        assert steps == [0, 1, 2, 3]
        assert all(event["steps"] == 4 for event in heard if event["type"] == "denoising")
        alone = await begin(studio, "w")
        await asyncio.sleep(30)
        live = studio.registry.find(alone)
        assert live is not None
        assert "denoising" not in [event.kind for event in live.feed.after(int(live.created * 1000)) or []]

    run(Studio(store), play)


def test_an_idle_session_leaves_with_notice_and_comes_back_with_its_next_control(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w d")
        heard = await until(studio, name, "resting")
        stored = [event["at"] for event in heard if event["type"] == "stored"][-1]
        times = {event["type"]: event["at"] for event in heard}
        assert times["expiring"] == pytest.approx(stored + 90)
        assert times["resting"] == pytest.approx(stored + 100)
        await asyncio.sleep(1000)
        assert (await studio.service.control(name, ME, "a", 2))["first"] == 2
        await until(studio, name, "stored")
        await studio.service.finish(name, ME)
        await until(studio, name, "committed")
        assert probe(await film(studio, name)).frames == 99
        assert studio.denoised() == [(name, 0), (name, 1), (name, 2)], "nothing is made twice"

    run(Studio(store, service=ServiceLimits(idle_seconds=100, notice_seconds=10)), play)


def test_a_resting_session_keeps_nothing_that_its_state_and_the_store_can_tell(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w d")
        heard = await until(studio, name, "resting")
        assert "preview" in [event["type"] for event in heard]
        live = studio.registry.find(name)
        assert live is not None
        last = live.feed.seq
        assert [event.kind for event in live.feed.after(last - 1) or []] == ["resting"]
        assert (live.feed.after(last - 2), live.init, live.fetching) == (None, b"", set())
        news = await studio.service.news(name, ME, heard[0]["seq"])
        assert [(event["type"], event["seq"], event["session"]["status"]) for event in news.events] == [
            ("state", last, "resting")
        ]
        init = await studio.service.init(name, ME)
        await studio.service.control(name, ME, "a", 2)
        news = await studio.service.news(name, ME, last)
        assert news.events[0]["seq"] == last + 1
        await studio.service.finish(name, ME)
        await until(studio, name, "committed")
        assert (await film(studio, name)).startswith(init.data)

    run(Studio(store, service=ServiceLimits(idle_seconds=100, notice_seconds=10)), play)


def test_a_control_keeps_a_session_from_leaving(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        await until(studio, name, "expiring")
        await studio.service.control(name, ME, "d", None)
        await asyncio.sleep(20)
        assert (await studio.service.describe(name, ME))["status"] == "running"

    run(Studio(store, service=ServiceLimits(idle_seconds=30, notice_seconds=10)), play)


@pytest.mark.parametrize("when", ["running", "resting", "committed"])
def test_a_deleted_session_leaves_only_what_it_was_sent(store: Store, when: str) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w d")
        if when == "committed":
            await until(studio, name, "stored")
            await studio.service.finish(name, ME)
        await until(studio, name, {"running": "stored"}.get(when, when))
        await studio.service.delete(name, ME)
        with pytest.raises(NoSuchSession):
            await studio.service.describe(name, ME)
        await asyncio.sleep(100)

    run(Studio(store, service=ServiceLimits(idle_seconds=30, notice_seconds=10)), play)
    left = {key.partition("/")[0] for key in store.list("")}
    assert left == {layout.INPUTS} | ({layout.VIDEOS} if when == "committed" else set())


def test_a_cancelled_session_is_cancelled_for_good(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w d a")
        await until(studio, name, "stored")
        assert (await studio.service.cancel(name, ME))["status"] == "cancelled"
        with pytest.raises(Conflict):
            await studio.service.control(name, ME, "w", None)
        await asyncio.sleep(100)
        assert (await studio.service.describe(name, ME))["status"] == "cancelled"

    run(Studio(store), play)


def test_a_failed_session_says_why(store: Store) -> None:
    def behaviour(order: Order) -> Any:
        return (
            Poisoned("every frame is grey", remedy="check the weights")
            if isinstance(order, DecodeOrder)
            else usual(order)
        )

    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        (*_, last) = await until(studio, name, "failed")
        assert (last["reason"], last["remedy"]) == ("every frame is grey", "check the weights")
        await asyncio.sleep(100)
        told = await studio.service.describe(name, ME)
        assert told["status"] == "failed"
        assert told["error"]["reason"] == "every frame is grey"

    run(Studio(store, behaviour=behaviour), play)

"""What the service promises: through restarts and absent stores, to those who wait, to each tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from gamecraft_core.base.errors import StoreUnavailable
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import layout
from gamecraft_core.media.fragment import probe
from orchestrator.limits import Limits, TenantLimits
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import Conflict, NoSuchSession, NotReady, Overloaded, Upload
from tests.fakes import virtual_time
from tests.fakes.callers import ASKED, ME, begin, film, run, until
from tests.fakes.studio import Studio, picture


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid4().hex}")


def test_what_was_promised_survives_the_process(store: Store) -> None:
    """Killed while chunk 2 of 4 is denoised; one session more was finished, one waits for its first control."""
    names: dict[str, str] = {}

    async def first() -> None:
        studio = Studio(store)
        await studio.start()
        names["done"] = await begin(studio, "w")
        await studio.service.finish(names["done"], ME)
        await until(studio, names["done"], "committed")
        names["idle"] = await begin(studio)
        names["half"] = await begin(studio, "w d")
        await studio.service.control(names["half"], ME, "a*2", 2)
        await studio.service.finish(names["half"], ME)
        while len(list(store.list(layout.staging_folder(names["half"])))) < 2:
            await until(studio, names["half"], "stored")
        await studio.kill()

    async def second() -> None:
        studio = Studio(store)
        with pytest.raises(NotReady):
            await studio.service.describe(names["half"], ME)
        await studio.start()
        await until(studio, names["half"], "committed")
        assert min(index for _, index in studio.denoised()) >= 2, "durable chunks are not made again"
        assert probe(await film(studio, names["half"])).frames == 4 * 33
        assert [entry["id"] for entry in await studio.service.listing(ME, "", 10)] == sorted(names.values())
        assert (await studio.service.describe(names["done"], ME))["status"] == "committed"
        assert (await studio.service.describe(names["idle"], ME))["status"] == "resting"
        await studio.service.control(names["idle"], ME, "w", 0)
        await until(studio, names["idle"], "stored")
        await studio.stop()

    virtual_time.run(first())
    virtual_time.run(second())


def test_a_cursor_of_an_earlier_start_gets_the_state(store: Store) -> None:
    seen: dict[str, Any] = {}

    async def first() -> None:
        studio = Studio(store)
        await studio.start()
        await asyncio.sleep(5)
        seen["name"] = await begin(studio, "w")
        seen["last"] = (await until(studio, seen["name"], "stored"))[-1]["seq"]
        await studio.stop()

    async def second() -> None:
        await asyncio.sleep(60)
        studio = Studio(store)
        await studio.start()
        news = await studio.service.news(seen["name"], ME, seen["last"])
        assert [event["type"] for event in news.events] == ["state"]
        assert news.cursor > seen["last"]
        assert news.shown == 1
        await studio.stop()

    virtual_time.run(first())
    virtual_time.run(second())


def test_numbers_rise_when_a_settled_session_has_left_memory(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        await until(studio, name, "stored")
        await studio.service.finish(name, ME)
        last = (await until(studio, name, "committed"))[-1]["seq"]
        await asyncio.sleep(2 * studio.service_limits.linger_seconds)
        news = await studio.service.news(name, ME, last)
        ((kind, seq, status),) = [(each["type"], each["seq"], each["session"]["status"]) for each in news.events]
        assert (kind, status, news.over) == ("state", "committed", True)
        assert news.cursor == seq > last

    run(Studio(store), play)


async def slowly(call: Callable[..., Any], /, *arguments: Any) -> Any:
    """A store that takes a while, so that others come in between."""
    await asyncio.sleep(1.0)
    return call(*arguments)


def test_a_repeated_request_begins_one_session(store: Store) -> None:
    """Repeated at once, later, and after a restart; the keys of others, and other keys, are their own."""
    known: set[str] = set()

    async def begun(studio: Studio, key: str, tenant: str = ME) -> str:
        session = await studio.service.create(ASKED, tenant, Upload("image", picture()), key=key)
        return str(session["id"])

    async def first(studio: Studio) -> None:
        known.update(await asyncio.gather(*(begun(studio, "mine") for _ in range(3))))
        assert len(known) == 1
        assert await begun(studio, "mine") in known
        others = [await begun(studio, "other"), await begun(studio, "mine", "somebody"), await begun(studio, "")]
        assert len({*known, *others, await begun(studio, "")}) == 5
        promised = [key for key in store.list(layout.SESSIONS) if key.endswith("/request.json")]
        assert len(promised) == 5
        assert not any(b"mine" in store.get(key) for key in promised), "what repeats a request is nobody's to read"

    async def second(studio: Studio) -> None:
        assert await begun(studio, "mine") in known

    run(Studio(store, aside=slowly), first)
    run(Studio(store, aside=slowly), second)


def test_a_promise_that_cannot_be_made_can_be_asked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(studio: Studio) -> None:
        def away(*promise: Any) -> None:
            raise StoreUnavailable("it is away")

        async def begun() -> dict[str, Any]:
            return await studio.service.create(ASKED, ME, Upload("image", picture()), key="mine")

        await begin(studio)  # its picture is stored
        with monkeypatch.context() as patch:
            patch.setattr(studio.service._journal, "begin", away)
            answers = await asyncio.gather(begun(), begun(), return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) for each in answers), "the repeated one is no promise either"
        assert (await begun())["id"]
        assert len(await studio.service.listing(ME, "", 10)) == 2

    run(Studio(store, aside=slowly), play)


def test_a_promise_that_cannot_be_kept_is_not_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        real = store.put_if_absent

        def away(key: str, data: bytes) -> bool:
            if key.startswith(layout.SESSIONS):
                raise StoreUnavailable("it is away")
            return real(key, data)

        with monkeypatch.context() as patch:
            patch.setattr(store, "put_if_absent", away)
            with pytest.raises(StoreUnavailable):
                await studio.service.control(name, ME, "d", None)
            with pytest.raises(StoreUnavailable):
                await begin(studio, "w")
        await asyncio.sleep(30)
        assert studio.denoised()[:1] == [(name, 0)]
        assert (name, 1) not in studio.denoised()
        assert (await studio.service.control(name, ME, "d", 1))["first"] == 1
        assert [entry["id"] for entry in await studio.service.listing(ME, "", 10)] == [name]

    run(Studio(store), play)


def test_a_list_never_leaves_out_what_it_cannot_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        await until(studio, name, "stored")
        await studio.service.cancel(name, ME)
        await asyncio.sleep(2 * studio.service_limits.linger_seconds)
        real = store.get

        def away(key: str) -> bytes:
            if name in key:
                raise StoreUnavailable("it is away")
            return real(key)

        with monkeypatch.context() as patch:
            patch.setattr(store, "get", away)
            with pytest.raises(StoreUnavailable):
                await studio.service.listing(ME, "", 10)
        assert [entry["id"] for entry in await studio.service.listing(ME, "", 10)] == [name]

    run(Studio(store), play)


def test_a_repeated_control_counts_once(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        for _ in range(2):
            answer = await studio.service.control(name, ME, "d a", 1)
            assert (answer["first"], answer["count"], answer["chunks"]["asked"]) == (1, 2, 3)
        with pytest.raises(Conflict, match="next chunk is 3"):
            await studio.service.control(name, ME, "s", 2)
        with pytest.raises(Conflict, match="next chunk is 3"):
            await studio.service.control(name, ME, "s", 7)

    run(Studio(store), play)


def test_who_waits_hears_the_place_and_who_cannot_wait_is_refused(store: Store) -> None:
    async def play(studio: Studio) -> None:
        running = await begin(studio, "w")
        waiting = [await begin(studio, "w", tenant="other") for _ in range(2)]
        places = [(await studio.service.describe(name, "other"))["position"] for name in waiting]
        assert places == [1, 2]
        with pytest.raises(Overloaded) as refused:
            await begin(studio, "w")
        assert refused.value.position == 3
        assert studio.refused == ["queue"]
        listening = asyncio.create_task(until(studio, waiting[1], "running", "other"))
        await asyncio.sleep(1)
        await studio.service.cancel(running, ME)
        await studio.service.finish(waiting[0], "other")
        heard = await listening
        assert [event["position"] for event in heard if event["type"] == "queued"] == [1]

    run(Studio(store, Limits(max_sessions=1, max_queued=2)), play)


def test_who_plays_comes_before_videos_and_players_share(store: Store) -> None:
    """A video of 20 chunks is under way (4 s each on the one group); two players wait for one of them at most."""

    async def play(studio: Studio) -> None:
        cells = {**ASKED, "actions": "w*20"}
        video = await studio.service.create(cells, ME, Upload("image", picture()), played=False)
        await asyncio.sleep(6)
        players = [await begin(studio, "w*3") for _ in range(2)]
        heard = await asyncio.gather(*(until(studio, name, "stored") for name in players))
        waits = [next(event["at"] for event in each if event["type"] == "decoded") - 6 for each in heard]
        assert max(waits) <= 4 * 4 + 1.5
        for name in players:
            await studio.service.finish(name, ME)
            await until(studio, name, "committed")
        order = [name for name, _ in studio.denoised() if name in players]
        assert all(order[:count].count(name) >= count // 2 - 1 for count in range(1, 7) for name in players)
        await until(studio, video["id"], "committed")
        assert probe(await film(studio, video["id"])).frames == 20 * 33

    run(Studio(store), play)


def test_a_tenant_has_its_own_bound(store: Store) -> None:
    async def play(studio: Studio) -> None:
        await begin(studio, "w", tenant="small")
        second = await begin(studio, "w", tenant="small")
        assert (await studio.service.describe(second, "small"))["status"] == "queued"
        other = await begin(studio, "w")
        assert (await studio.service.describe(other, ME))["status"] == "running"

    run(Studio(store, Limits(tenants={"small": TenantLimits(max_sessions=1)})), play)


def test_controls_far_ahead_are_held_back(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w*4")
        with pytest.raises(Overloaded) as refused:
            await studio.service.control(name, ME, "d", None)
        assert refused.value.retry_after == pytest.approx(1.32)
        assert studio.refused == ["ahead"]
        with pytest.raises(Conflict, match="at most"):
            await studio.service.control(name, ME, "d*9", None)

    run(Studio(store, service=ServiceLimits(max_ahead=4, max_chunks=10)), play)


def test_of_another_tenants_session_there_is_no_word(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        for ask in (studio.service.describe, studio.service.finish, studio.service.cancel, studio.service.delete):
            with pytest.raises(NoSuchSession):
                await ask(name, "other")
        with pytest.raises(NoSuchSession):
            await studio.service.control(name, "other", "w", None)
        with pytest.raises(NoSuchSession):
            await studio.service.news(name, "other", None)
        assert await studio.service.listing("other", "", 10) == []

    run(Studio(store), play)

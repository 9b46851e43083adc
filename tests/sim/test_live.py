"""The service under a virtual clock: what it promises, what it tells, and what is left when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from gamecraft_core.base.errors import Poisoned, StoreUnavailable
from gamecraft_core.base.messages import DecodeOrder, Order
from gamecraft_core.base.store import Inspectable, Store, open_store
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.audit import Kind
from gamecraft_core.media.fragment import probe
from orchestrator.limits import Limits, TenantLimits
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import Conflict, NoSuchSession, NotReady, Overloaded, Refused, Upload
from tests.fakes import virtual_time
from tests.fakes.outputs import found, look, run_record
from tests.fakes.studio import Studio, picture
from tests.fakes.world import usual

ME = "me"
ASKED = {"prompt": "a quiet harbour"}


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid4().hex}")


def run(studio: Studio, play: Callable[[Studio], Awaitable[None]]) -> None:
    """``play`` on ``studio``, which is started before and stopped after."""

    async def main() -> None:
        await studio.start()
        await play(studio)
        await studio.stop()

    virtual_time.run(main())


async def begin(studio: Studio, actions: str | None = None, tenant: str = ME, **changes: Any) -> str:
    cells = {**ASKED, **({"actions": actions} if actions else {}), **changes}
    return str((await studio.service.create(cells, tenant, Upload("image", picture())))["id"])


async def until(studio: Studio, session_id: str, kind: str, tenant: str = ME) -> list[dict[str, Any]]:
    """All events from now until the first of ``kind``."""
    heard: list[dict[str, Any]] = []
    cursor: int | None = None
    while True:
        news = await studio.service.news(session_id, tenant, cursor)
        cursor = news.cursor
        for event in news.events:
            heard.append(event)
            if event["type"] == kind:
                return heard
        assert not news.over, f"it ended without {kind}: {heard}"


async def film(studio: Studio, session_id: str) -> bytes:
    size, version = await studio.service.video(session_id, ME)
    return await studio.service.video_bytes(session_id, ME, 0, size, version)


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

    run(Studio(store, service=ServiceLimits(media_bytes=0)), play)


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


def test_a_control_keeps_a_session_from_leaving(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        await until(studio, name, "expiring")
        await studio.service.control(name, ME, "d", None)
        await asyncio.sleep(20)
        assert (await studio.service.describe(name, ME))["status"] == "running"

    run(Studio(store, service=ServiceLimits(idle_seconds=30, notice_seconds=10)), play)


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


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"steps": 0}, "steps"),
        ({"actions": "w fly"}, "actions[1].action"),
        ({"image": "/etc/passwd"}, "image"),
        ({"image": "file:///etc/passwd"}, "image"),
        ({"tenant": "other"}, "tenant"),
        ({"priority": "interactive"}, "priority"),
        ({"session_id": "mine"}, "session_id"),
        ({"actions": [{"poses": "/etc/passwd"}]}, "actions[0].poses"),
    ],
)
def test_what_is_wrong_names_field_and_remedy(store: Store, changes: dict[str, Any], field: str) -> None:
    async def play(studio: Studio) -> None:
        upload = None if "image" in changes else Upload("image", picture())
        with pytest.raises(Refused) as refused:
            await studio.service.create({**ASKED, **changes}, ME, upload)
        assert field in [name for name, _, _ in refused.value.problems]
        assert all(remedy for _, _, remedy in refused.value.problems)

    run(Studio(store), play)


def test_only_what_was_sent_can_be_named_not_what_lies_near_it(tmp_path: Path) -> None:
    kept = open_store(str(tmp_path / "out"))
    (tmp_path / "secret.png").write_bytes(picture())

    async def play(studio: Studio) -> None:
        await begin(studio)
        (sent,) = kept.list(layout.INPUTS)
        assert await studio.service.create({**ASKED, "image": kept.uri(sent)}, ME)
        for near in ("../../secret.png", f"{sent.partition('/')[2]}/../../../secret.png"):
            with pytest.raises(Refused, match="cannot be named"):
                await studio.service.create({**ASKED, "image": f"{kept.uri(layout.INPUTS)}/{near}"}, ME)

    run(Studio(kept), play)


def test_a_picture_that_is_none_is_refused_at_once(store: Store) -> None:
    async def play(studio: Studio) -> None:
        with pytest.raises(Refused) as refused:
            await studio.service.create(ASKED, ME, Upload("image", b"GIF89a, or so"))
        assert refused.value.field == "image"

    run(Studio(store), play)


def test_a_camera_path_can_be_sent_as_text(store: Store) -> None:
    row = " ".join(map(str, [0, 0.5, 0.9, 0.5, 0.5, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.1]))

    async def play(studio: Studio) -> None:
        name = await begin(studio)
        await studio.service.control(name, ME, [{"poses": f"{row}\n" * 33}], 0)
        await until(studio, name, "stored")
        await studio.kill()
        again = Studio(store)
        await again.start()
        live = again.registry.find(name)
        assert live is not None
        assert len(live.controls[0].rows) >= 33  # type: ignore[union-attr]
        await studio.start()
        await again.stop()

    run(Studio(store), play)


def test_a_service_that_stops_accepts_nothing_and_says_so(store: Store) -> None:
    async def main() -> None:
        studio = Studio(store)
        await studio.start()
        name = await begin(studio, "w d")
        listening = asyncio.create_task(until(studio, name, "draining"))
        await asyncio.sleep(5)
        await studio.stop()
        await listening
        assert (await studio.service.news(name, ME, None)).over
        with pytest.raises(NotReady):
            await begin(studio, "w")
        with pytest.raises(NotReady):
            await studio.service.control(name, ME, "w", None)
        assert len(list(store.list(layout.staging_folder(name)))) == 2, "what was being denoised is durable"

    virtual_time.run(main())

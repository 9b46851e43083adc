"""Sessions without a camera in the service: nothing is shown before its pixels are settled, then all in time order."""

from __future__ import annotations

import asyncio
import io
from typing import Any
from uuid import uuid4

import pytest

from gamecraft_core.base.messages import DecodeOrder, Order
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.media.fragment import probe
from orchestrator.http.streams import segments
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import Conflict, Refused, Upload
from tests.fakes import virtual_time
from tests.fakes.callers import ASKED, ME, film, run, until
from tests.fakes.recordings import level_of
from tests.fakes.studio import Studio, picture, preset
from tests.fakes.world import usual

NAMES = ("tiny-gamecraft", "tiny-hunyuan-video", "tiny-framepack", "tiny-framepack-f1")

#: What the chunks of three sections of 36 frames settle, in the order in which they are shown.
SETTLED = {"tiny-framepack": [(2, 73), (1, 36), (0, 0)], "tiny-framepack-f1": [(0, 4), (1, 36), (2, 69)]}


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid4().hex}")


def studio(store: Store, **changes: Any) -> Studio:
    return Studio(store, served=[preset(name) for name in NAMES], **changes)


async def begin(world: Studio, name: str, **cells: Any) -> str:
    upload = None if name == "tiny-hunyuan-video" else Upload("image", picture())
    return str((await world.service.create({**ASKED, "preset": name, **cells}, ME, upload))["id"])


def levels(mp4: bytes) -> list[int]:
    """The grey of every frame."""
    import av

    with av.open(io.BytesIO(mp4), "r") as container:
        return [int(frame.to_ndarray(format="gray")[9, 9]) for frame in container.decode(video=0)]


async def streamed(world: Studio, name: str, first: int = 0) -> bytes:
    return b"".join([piece async for piece in segments(world.service, name, ME, first)])


async def watched(world: Studio, name: str) -> list[tuple[dict[str, Any], int]]:
    """Every event until the end, and how many chunks were shown when it was told."""
    heard: list[tuple[dict[str, Any], int]] = []
    cursor = None
    while True:
        news = await world.service.news(name, ME, cursor)
        cursor = news.cursor
        heard += [(event, news.shown) for event in news.events]
        if news.over:
            return heard


@pytest.mark.parametrize("name", SETTLED)
def test_chunks_are_shown_in_time_order_as_they_settle(store: Store, name: str) -> None:
    async def play(world: Studio) -> None:
        session = await begin(world, name)
        stream = asyncio.create_task(streamed(world, session))
        heard = await watched(world, session)
        told = [(event["chunk"], event["frames"]) for event, _ in heard if event["type"] == "decoded"]
        assert told == SETTLED[name]
        shown = {event["chunk"]: count for event, count in heard if event["type"] == "stored"}
        assert shown == ({0: 0, 1: 0} if name == "tiny-framepack" else {0: 1, 1: 2})
        video = await film(world, session)
        assert await stream == video
        assert levels(video) == pytest.approx(
            [level_of(number, preset(name).sampling.seed) for number in range(109)], abs=4
        )
        assert probe(video).monotonic
        records = await world.service.records(session, ME)
        assert records["num_frames"] == 109

    run(studio(store), play)


@pytest.mark.parametrize("media_bytes", [0, 1 << 20])
def test_nothing_of_an_inverted_session_can_be_fetched_before_its_beginning(
    store: Store, media_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranged = store.get_range

    def get_range(key: str, start: int, end: int, version: str) -> bytes:
        assert start < end, "a bucket refuses empty ranges"
        return ranged(key, start, end, version)

    monkeypatch.setattr(store, "get_range", get_range)

    async def play(world: Studio) -> None:
        session = await begin(world, "tiny-framepack")
        for _ in range(2):
            await until(world, session, "stored")
        for place in range(3):
            with pytest.raises(Conflict, match="is not there"):
                await world.service.segment(session, ME, place)
        assert (await world.service.describe(session, ME))["chunks"]["shown"] == 0
        late = asyncio.create_task(streamed(world, session, 1))
        await until(world, session, "committed")
        video = await film(world, session)
        pieces = [await world.service.segment(session, ME, place) for place in range(3)]
        init = (await world.service.init(session, ME)).data
        assert init + b"".join(pieces) == video
        assert pieces[2] == b""
        assert await late == init + pieces[1]
        assert await streamed(world, session, 2) == init
        await asyncio.sleep(2 * world.service_limits.linger_seconds)
        assert await streamed(world, session) == video, "from the store alone"

    run(studio(store, service=ServiceLimits(media_bytes=media_bytes)), play)


@pytest.mark.parametrize("name", SETTLED)
@pytest.mark.parametrize("durable", [1, 2])
@pytest.mark.parametrize("gone", [None, 0], ids=["all there", "the last one lost"])
def test_a_session_goes_on_where_it_was_after_a_restart(
    store: Store, name: str, durable: int, gone: int | None
) -> None:
    """Killed with some of its chunks durable; of those the last may be damaged since."""
    names: list[str] = []

    async def first() -> None:
        world = studio(store)
        await world.start()
        names.append(await begin(world, name))
        for _ in range(durable):
            await until(world, names[0], "stored")
        await world.kill()

    async def second() -> None:
        world = studio(store)
        await world.start()
        stream = asyncio.create_task(streamed(world, names[0]))
        shown = (await world.service.describe(names[0], ME))["chunks"]["shown"]
        assert shown == (0 if name == "tiny-framepack" else durable)
        with pytest.raises(Conflict) as refused:
            await world.service.control(names[0], ME, "w", None)
        assert (refused.value.field, refused.value.remedy) == ("actions", "begin another")
        assert not (await world.service.finish(names[0], ME))["open"]
        heard = await watched(world, names[0])
        told = [(event["chunk"], event["frames"]) for event, _ in heard if event["type"] == "decoded"]
        kept = durable - (gone is not None)
        assert told == (SETTLED[name] if name == "tiny-framepack" else SETTLED[name][kept:])
        assert [index for _, index in world.denoised()] == list(range(kept, 3))
        video = await film(world, names[0])
        assert await stream == video
        assert probe(video).frames == 109
        await world.stop()

    virtual_time.run(first())
    if gone is not None:
        *_, last = sorted(key for key in store.list("_staging") if names[0] in key)
        store.put(last, b"torn")
    virtual_time.run(second())


def test_previews_of_sections_are_told_while_nothing_is_shown_and_never_after(store: Store) -> None:
    async def play(world: Studio) -> None:
        session = await begin(world, "tiny-framepack")
        heard = await watched(world, session)
        kinds = [event["type"] for event, _ in heard]
        assert [event["chunk"] for event, _ in heard if event["type"] == "preview"] == [0, 1, 2]
        assert all(count == 0 for event, count in heard if event["type"] == "preview")
        assert "preview" not in kinds[kinds.index("decoded") :]

    run(studio(store), play)


def test_a_preview_that_comes_when_the_video_is_there_is_not_told(store: Store) -> None:
    async def play(world: Studio) -> None:
        for lane in world.lanes:
            lane.preview_s = 1.75  # than a decode takes: that of the last section is over by then
        heard = await watched(world, await begin(world, "tiny-framepack"))
        assert [event["chunk"] for event, _ in heard if event["type"] == "preview"] == []

    run(studio(store), play)


def test_a_batch_of_sections_costs_no_previews(store: Store) -> None:
    async def play(world: Studio) -> None:
        made = await world.service.create(
            {**ASKED, "preset": "tiny-framepack"}, ME, Upload("image", picture()), played=False
        )
        assert "preview" not in [event["type"] for event, _ in await watched(world, made["id"])]
        assert sum(lane.previewed for lane in world.lanes) == 0

    run(studio(store), play)


def test_sections_may_be_decoded_out_of_turn(store: Store) -> None:
    """The beginning is decoded first of all: what comes after it is shown as it is there, and in order."""

    def behaviour(order: Order) -> float:
        return {0: 20.0, 1: 30.0, 2: 1.0}[order.index] if isinstance(order, DecodeOrder) else usual(order)

    async def play(world: Studio) -> None:
        session = await begin(world, "tiny-framepack")
        stream = asyncio.create_task(streamed(world, session))
        heard = await watched(world, session)
        assert [event["chunk"] for event, _ in heard if event["type"] == "decoded"] == [2, 1, 0]
        assert await stream == await film(world, session)

    run(
        studio(store, behaviour=behaviour, stages=("text", "encode", "denoise", "decode", "decode", "decode", "write")),
        play,
    )


def test_a_whole_video_begins_without_a_picture(store: Store) -> None:
    async def play(world: Studio) -> None:
        session = await begin(world, "tiny-hunyuan-video", frames=17)
        with pytest.raises(Conflict, match="no more controls"):
            await world.service.control(session, ME, "w", None)
        await until(world, session, "committed")
        assert probe(await film(world, session)).frames == 17
        assert not [lane for lane in world.lanes if lane.stage == "encode" and lane.log]
        with pytest.raises(Refused) as refused:
            await world.service.create({**ASKED, "preset": "tiny-hunyuan-video"}, ME, Upload("image", picture()))
        assert (refused.value.field, refused.value.remedy) == ("image", "leave it out")

    run(studio(store), play)


@pytest.mark.parametrize(("name", "field"), [("tiny-hunyuan-video", "frames"), ("tiny-framepack", "seconds")])
def test_actions_to_a_preset_without_a_camera_are_refused(store: Store, name: str, field: str) -> None:
    async def play(world: Studio) -> None:
        with pytest.raises(Refused) as refused:
            await begin(world, name, actions="w*3")
        assert refused.value.field == "actions"
        assert field in refused.value.remedy

    run(studio(store), play)


def test_too_many_sections_are_refused_by_what_asked_for_them(store: Store) -> None:
    async def play(world: Studio) -> None:
        with pytest.raises(Conflict) as refused:
            await begin(world, "tiny-framepack", seconds=20)
        assert (refused.value.field, refused.value.remedy) == ("seconds", "ask for 4 at most")

    run(studio(store, service=ServiceLimits(max_chunks=4)), play)

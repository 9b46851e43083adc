"""What happens to a session while somebody reads it, or asks something else of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.messages import DecodeOrder, Fragment, Order
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import layout
from gamecraft_core.media.fragment import encode_fragment, join
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import NotReady
from orchestrator.live.reel import Film, split, staged_fragment
from tests.fakes.callers import ME, begin, film, run, until
from tests.fakes.recordings import flat_frames
from tests.fakes.studio import Studio
from tests.fakes.world import usual

PATIENCE_S = 60.0


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid4().hex}")


class Aside:
    """Carries calls out at once, but those that are called ``name``: before them ``first`` happens, the first time."""

    def __init__(self, name: str, first: Callable[..., Awaitable[None]]) -> None:
        self.name = name
        self.first: Callable[..., Awaitable[None]] | None = first

    async def __call__(self, call: Callable[..., Any], /, *arguments: Any) -> Any:
        if call.__name__ == self.name and self.first is not None:
            first, self.first = self.first, None
            await first(*arguments)
        return call(*arguments)


@pytest.mark.parametrize(("nth", "other"), [(1, 0), (2, 0), (3, 1)])
def test_two_who_look_for_the_segments_of_one_video_find_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch, nth: int, other: int
) -> None:
    """The first one's read number ``nth`` takes until the second one has chunk ``other``."""
    pieces = [
        encode_fragment(flat_frames([index] * 3), index=index, start_frame=3 * index, fps=25).data for index in range(3)
    ]
    store.put("video", join(pieces))
    video = Film(store, "video")
    begun, over = Event(), Event()
    reads, real = iter(range(1, 100)), store.get_range

    def slow(key: str, start: int, end: int, version: str = "") -> bytes:
        if next(reads) == nth:
            begun.set()
            assert over.wait(PATIENCE_S)
        return real(key, start, end, version)

    monkeypatch.setattr(store, "get_range", slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(video.segment, 2)
        assert begun.wait(PATIENCE_S)
        second = threads.submit(video.segment, other)
        found = second.result(PATIENCE_S)
        over.set()
        found_first = first.result(PATIENCE_S)
    segments = [split(piece)[1] for piece in pieces]
    assert (found, found_first) == (segments[other], segments[2])
    assert [video.segment(index) for index in range(3)] == segments


@pytest.mark.parametrize("piece", ["segment", "init"])
def test_who_reads_a_chunk_while_it_is_committed_finds_it_in_the_video(store: Store, piece: str) -> None:
    key = ""

    async def committed(live: Any, index: int = 0) -> None:
        await studio.service.finish(live.session_id, ME)
        await until(studio, live.session_id, "committed")
        staged_fragment(store, key)

    async def play(studio: Studio) -> None:
        nonlocal key
        name = await begin(studio, "w d")
        await until(studio, name, "stored")
        (key,) = store.list(layout.staging_folder(name))
        live = studio.registry.find(name)
        assert live is not None
        live.init = b""  # as after a restart
        init = await studio.service.init(name, ME)
        segment = await studio.service.segment(name, ME, 0)
        assert (await film(studio, name)).startswith(init.data + segment)

    studio = Studio(store, aside=Aside(piece, committed), service=ServiceLimits(media_bytes=0))
    run(studio, play)


def test_who_waits_for_a_chunk_when_the_service_drains_is_asked_to_come_again(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        await until(studio, name, "decoded")
        reading = asyncio.create_task(studio.service.segment(name, ME, 0))
        await asyncio.sleep(0.1)
        studio.service.drain()
        with pytest.raises(NotReady):
            await reading

    run(Studio(store, service=ServiceLimits(media_bytes=0)), play)


def test_a_session_that_is_committed_before_it_is_called_off_stays_committed(store: Store) -> None:
    async def committed(spec: SessionSpec) -> None:
        await until(studio, spec.session_id, "committed")

    async def play(studio: Studio) -> None:
        name = await begin(studio, "w d")
        await studio.service.finish(name, ME)
        told = [(await studio.service.cancel(name, ME))["status"]]
        video = await film(studio, name)
        await asyncio.sleep(2 * studio.service_limits.linger_seconds)
        told.append((await studio.service.describe(name, ME))["status"])
        assert told == ["committed", "committed"]
        assert await film(studio, name) == video

    studio = Studio(store, aside=Aside("cancel", committed))
    run(studio, play)


def test_a_session_that_fails_before_it_goes_on_does_not_go_on(store: Store) -> None:
    async def failed(spec: SessionSpec, *promised: Any) -> None:
        await until(studio, spec.session_id, "failed")

    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        told = await studio.service.control(name, ME, "d", 1)
        assert told["status"] == "failed"

    def behaviour(order: Order) -> Any:
        return Poisoned("every frame is grey") if isinstance(order, DecodeOrder) else usual(order)

    studio = Studio(store, aside=Aside("extend", failed), behaviour=behaviour)
    run(studio, play)


def test_a_chunk_whose_bytes_do_not_come_from_its_lane_comes_from_the_store(store: Store) -> None:
    """The fetches of chunks 0 and 1 fail; that of 2 does not, and what is told stays in order."""

    asked = iter(range(3))

    async def fetch(fragment: Fragment) -> bytes:
        if next(asked) < 2:
            raise ConnectionError("the node does not answer")
        return fragment.data

    async def play(studio: Studio) -> None:
        name = await begin(studio, "w d a")
        decoded = [event for event in await until(studio, name, "expiring") if event["type"] == "decoded"]
        assert [event["chunk"] for event in decoded] == [0, 1, 2]
        assert all(event["ended"] > event["started"] for event in decoded)
        init = await studio.service.init(name, ME)
        pieces = [await studio.service.segment(name, ME, index) for index in range(3)]
        await studio.service.finish(name, ME)
        await until(studio, name, "committed")
        assert await film(studio, name) == b"".join([init.data, *pieces])

    run(Studio(store, fetch=fetch), play)


def test_a_chunk_whose_bytes_are_on_their_way_is_not_read_from_the_store(store: Store) -> None:
    """Its write may be faster; else every player would read it there for itself."""

    async def fetch(fragment: Fragment) -> bytes:
        await asyncio.sleep(30.0)
        return fragment.data

    async def play(studio: Studio) -> None:
        name = await begin(studio, "w")
        await until(studio, name, "stored")
        described = await studio.service.describe(name, ME)
        assert described["chunks"] == {"asked": 1, "shown": 0, "durable": 1}
        await until(studio, name, "decoded")
        assert studio.registry.reel.find(name, 0) == await studio.service.segment(name, ME, 0)

    run(Studio(store, fetch=fetch), play)

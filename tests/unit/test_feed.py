"""A feed keeps little, numbers everything, and tells who missed something."""

from __future__ import annotations

import asyncio

from orchestrator.live.feed import KEPT, Feed


def kinds(feed: Feed, after: int) -> list[str] | None:
    events = feed.after(after)
    return None if events is None else [event.kind for event in events]


def test_numbers_rise_by_one_from_the_first() -> None:
    feed = Feed(100)
    for kind in "abc":
        feed.tell(kind, 0.0)
    assert [event.seq for event in feed.after(100) or []] == [101, 102, 103]
    assert kinds(feed, 102) == ["c"]
    assert kinds(feed, 103) == []


def test_a_state_replaces_the_one_before_it_and_nobody_misses_anything() -> None:
    feed = Feed(0)
    for step in range(50):
        feed.tell("denoising", 0.0, "step", step=step)
        feed.tell("queued", 0.0, "queue", position=50 - step)
    feed.tell("decoded", 0.0)
    events = feed.after(0) or []
    assert [(event.kind, dict(event.facts)) for event in events] == [
        ("denoising", {"step": 49}),
        ("queued", {"position": 1}),
        ("decoded", {}),
    ]


def test_who_comes_after_something_was_dropped_hears_that() -> None:
    feed = Feed(0)
    for number in range(KEPT + 3):
        feed.tell("decoded", 0.0, chunk=number)
    assert feed.after(2) is None
    assert len(feed.after(3) or []) == KEPT
    assert feed.after(feed.seq + 1) is None, "a cursor of some other feed"


def test_a_listener_waits_until_there_is_something_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        feed = Feed(0)
        waiting = [asyncio.create_task(feed.beyond(0)) for _ in range(3)]
        await asyncio.sleep(0)
        assert feed.listeners == 3
        waiting[0].cancel()
        feed.tell("decoded", 0.0)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert feed.listeners == 0
        later = asyncio.create_task(feed.beyond(1))
        await asyncio.sleep(0)
        feed.close()
        await later
        feed.tell("late", 0.0)
        assert feed.after(1) == []

    asyncio.run(main())

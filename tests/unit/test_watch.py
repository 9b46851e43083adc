"""The watch over an actor: progress keeps it alive, silence and standstill end it; who did not look blames nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from actors.role import Pulse
from actors.watch import watched
from gamecraft_core.base.errors import LaneHung

STALL_S = 0.2


class FakeActor:
    """As much of an actor's handle as the watch uses: ``pulse`` answers, or never does (None)."""

    def __init__(self, pulse: Callable[[], Pulse | None]) -> None:
        self._pulse = pulse
        self.pulse = self

    def options(self, concurrency_group: str) -> FakeActor:
        assert concurrency_group == "watch"
        return self

    async def remote(self) -> Pulse:
        pulse = self._pulse()
        if pulse is None:
            await asyncio.Event().wait()
        assert pulse is not None
        return pulse


def moving() -> Callable[[], Pulse]:
    moves = iter(range(10_000))
    return lambda: Pulse(next(moves), "on its way")


async def later(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


def wait(seconds: float, pulse: Callable[[], Pulse | None], **options: Any) -> str:
    return asyncio.run(watched(later(seconds), FakeActor(pulse), STALL_S, "lane", **options))


def test_what_moves_may_take_many_times_as_long() -> None:
    assert wait(5 * STALL_S, moving()) == "done"


def test_what_answers_quickly_is_not_asked() -> None:
    def asked() -> Pulse:
        raise AssertionError

    assert wait(0, asked) == "done"


@pytest.mark.parametrize(
    ("pulse", "message"),
    [
        (lambda: Pulse(7, "step 3"), r"lane has not moved \(last seen: step 3\) for 0.2 s"),
        (lambda: None, r"lane has not answered \(never seen at work\) for 0.2 s"),
    ],
)
def test_standstill_and_silence_are_told_apart(pulse: Callable[[], Pulse | None], message: str) -> None:
    with pytest.raises(LaneHung, match=message):
        wait(60, pulse)


def test_who_loads_weights_need_only_answer() -> None:
    assert wait(5 * STALL_S, lambda: Pulse(0, "nothing yet"), moving=False) == "done"
    with pytest.raises(LaneHung):
        wait(60, lambda: None, moving=False)


def test_time_in_which_the_watcher_itself_stood_still_does_not_count() -> None:
    async def late() -> str:
        actor = FakeActor(lambda: Pulse(1, "step 1"))
        waiting = asyncio.create_task(watched(later(3.4 * STALL_S), actor, STALL_S, "lane"))
        await asyncio.sleep(STALL_S / 4)
        time.sleep(3 * STALL_S)
        return await waiting

    assert asyncio.run(late()) == "done"

"""The page in a real browser: a world is begun, walked through and kept; reloads and restarts do not end it."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from gamecraft_core.base.messages import Order
from gamecraft_core.base.store import open_store
from gamecraft_core.media.fragment import probe
from tests.fakes.studio import Studio
from tests.fakes.web import served
from tests.fakes.world import usual
from tests.servers.browser import Browser
from tests.servers.child import free_port
from tests.service.walking import ARTIFACTS, CHUNK_S, PAINTED, SHOWN, TIME, begin, text, walk

pytestmark = pytest.mark.service


def brisk(order: Order) -> float:
    """A chunk takes 0.55 s: less than it plays."""
    return usual(order) * 0.1


def test_a_world_is_walked_through_in_a_browser(chromium: Browser, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))

    def studio() -> Studio:
        return Studio(store, aside=asyncio.to_thread, behaviour=brisk)

    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with ExitStack() as tabs:
        with served(studio, port=port):
            page = tabs.enter_context(chromium.page(url))
            begin(page)
            walk(page, 4)
            page.until(f"{TIME} > {3.5 * CHUNK_S}")
            assert page.run("seeks") == 0
            assert page.run("Math.max(0, ...stalls.map(([seconds]) => seconds))") < 1.0
            assert page.run("document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames") > 3 * 33
            for number in ("n-latency", "n-denoise", "n-decode"):
                assert re.fullmatch(r"\d+\.\d\d s", text(page, number)), number
            assert page.run(PAINTED) == ["denoise", "decode", "write"]
            page.screenshot(ARTIFACTS / "page.png")
            other = tabs.enter_context(chromium.page(url))
            begin(other)
            walk(other, 1)
            page.ask("Page.bringToFront")  # a muted video that nobody can see does not play
            assert page.run("location.hash") != other.run("location.hash")
            page.reload()
            page.until(f"{SHOWN} >= 4")
            walk(page, 6)
            page.until(f"{TIME} > {5.5 * CHUNK_S}")
            assert (page.complaints, other.complaints) == ([], [])
            reached = page.run(SHOWN)
        with served(studio, port=port):
            walk(page, reached + 2)
            page.until(f"{TIME} > {(reached + 0.5) * CHUNK_S}")
            page.run("document.getElementById('finish').click()")
            page.until("!document.getElementById('download').hidden")
            page.screenshot(ARTIFACTS / "page-finished.png")
            page.until("document.getElementById('n-ahead').textContent === '0'")
            video = probe(httpx.get(page.run("document.getElementById('download').href")).content)
            assert (video.frames, float(video.fps), video.monotonic) == (33 * page.run(SHOWN), 25.0, True)

"""The page in a real browser: a world is begun, walked through and kept; reloads and restarts do not end it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gamecraft_core.base.messages import Order
from gamecraft_core.base.store import open_store
from tests.fakes.studio import Studio, picture
from tests.fakes.web import served
from tests.fakes.world import usual
from tests.ray.runs import ROOT
from tests.servers.browser import Browser, Page, browser
from tests.servers.child import free_port

pytestmark = pytest.mark.service

ARTIFACTS = ROOT / "tests" / "artifacts"

CHOOSE = """(() => {{
  const bytes = Uint8Array.from(atob("{data}"), (letter) => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], "start.png", {{ type: "image/png" }}));
  document.getElementById("image").files = files.files;
  document.getElementById("image").dispatchEvent(new Event("change"));
  document.getElementById("play").click();
}})()"""

#: Stalls and seeks of the player from here on: stalls in seconds.
WATCH = """(() => {
  const video = document.getElementById("video");
  window.stalls = []; window.seeks = 0;
  let since = null;
  video.addEventListener("waiting", () => { since = performance.now(); });
  video.addEventListener("playing", () => {
    if (since) window.stalls.push((performance.now() - since) / 1000);
    since = null;
  });
  video.addEventListener("seeking", () => { window.seeks += 1; });
})()"""

SHOWN = "Number(document.getElementById('n-chunks').textContent)"
TIME = "document.getElementById('video').currentTime"
CHUNK_S = 1.32


def brisk(order: Order) -> float:
    """A chunk takes 0.55 s: less than it plays."""
    return usual(order) * 0.1


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


def begin(page: Page) -> None:
    page.run(CHOOSE.format(data=base64.b64encode(picture()).decode()))
    page.until("!document.getElementById('stage').hidden")
    page.run(WATCH)


def walk(page: Page, chunks: int) -> None:
    """Hold a key until so many chunks can be seen."""
    page.press("w")
    page.until(f"{SHOWN} >= {chunks}")
    page.press("w", up=True)


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
            assert page.run("Math.max(0, ...stalls)") < 1.0
            assert page.run("document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames") > 3 * 33
            page.screenshot(ARTIFACTS / "page.png")
            other = tabs.enter_context(chromium.page(url))
            begin(other)
            walk(other, 1)
            page.ask("Page.bringToFront")  # a muted video that nobody can see does not play
            assert page.run("location.hash") != other.run("location.hash")
            page.reload()
            page.until(f"{SHOWN} >= 4")
            walk(page, 6)
            assert (page.complaints, other.complaints) == ([], [])
            reached = page.run(SHOWN)
        with served(studio, port=port):
            walk(page, reached + 2)
            page.until(f"{TIME} > {(reached + 0.5) * CHUNK_S}")
            page.run("document.getElementById('finish').click()")
            page.until("!document.getElementById('download').hidden")
            page.screenshot(ARTIFACTS / "page-finished.png")

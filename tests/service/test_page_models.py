"""The page on the embedded default's real models, on a real cluster: nothing is emulated between key and picture."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator.http.client import Client
from tests.ray.runs import INPUTS
from tests.ray.serving import DEADLINE_S, Serving
from tests.servers.browser import Browser, Page
from tests.servers.child import free_port
from tests.servers.cluster import RayCluster
from tests.service.walking import ARTIFACTS, CHUNK_S, SHOWN, TIME, begin, walk

pytestmark = [pytest.mark.service, pytest.mark.ray]

#: What a browser and its driver may add to a stall: starting a decoder, a look at the page every now and then.
_BROWSER_S = 0.5

#: Every chunk's first frame that was on the screen, by the video's own clock.
FRAMES = """(() => {
  const video = document.getElementById("video");
  window.seen = [];
  const note = (now, { mediaTime }) => { window.seen.push(mediaTime); video.requestVideoFrameCallback(note); };
  video.requestVideoFrameCallback(note);
})()"""


class Ear(threading.Thread):
    """Listens to a session beside the page: its events, by type and chunk."""

    def __init__(self, url: str, session_id: str) -> None:
        super().__init__(daemon=True)
        self._url, self._session = url, session_id
        self.heard: dict[tuple[str, int], dict[str, Any]] = {}
        self.order: list[tuple[str, int]] = []

    def run(self) -> None:
        with Client(self._url, patience=2 * DEADLINE_S) as client:
            for piece in client.watch(self._session):
                if "chunk" in piece.event:
                    key = (piece.event["type"], piece.event["chunk"])
                    self.heard[key] = piece.event
                    self.order.append(key)

    def compute(self, chunk: int) -> float:
        """Seconds from where a chunk's denoise began until its frames were there."""
        return float(self.heard["decoded", chunk]["ended"] - self.heard["denoised", chunk]["started"])


def name_of(page: Page) -> str:
    return str(page.run("location.hash")).removeprefix("#")


def played_through(page: Page, chunks: int) -> None:
    """Until the video's clock is in the last of so many chunks; it has shown frames of every one."""
    page.until(f"{TIME} > {(chunks - 0.5) * CHUNK_S}", DEADLINE_S)
    seen = {int(time / CHUNK_S + 1e-3) for time in page.run("seen")}
    assert seen >= set(range(chunks))
    assert page.run("seeks") == 0


def test_the_tiny_models_are_walked_through(chromium: Browser, ray_cluster: RayCluster, tmp_path: Path) -> None:
    port = free_port()
    picture = (INPUTS / "harbour.png").read_bytes()
    with ExitStack() as stack:
        with Serving(ray_cluster, tmp_path, port, settings=("sampling.steps=4",)) as serving:
            page = stack.enter_context(chromium.page(serving.url))
            begin(page, picture)
            page.run(FRAMES)
            ear = Ear(serving.url, name_of(page))
            ear.start()
            walk(page, 4, DEADLINE_S)
            played_through(page, 4)
            page.screenshot(ARTIFACTS / "page-tiny.png")
            for seconds, at in page.run("stalls.filter(([, at]) => at > 0)"):
                assert seconds <= ear.compute(round(at / CHUNK_S)) + _BROWSER_S
            assert page.complaints == []

            other = stack.enter_context(chromium.page(serving.url))
            begin(other, picture)
            walk(other, 1, DEADLINE_S)
            assert name_of(other) != name_of(page)
            page.ask("Page.bringToFront")  # a muted video that nobody can see does not play
            page.reload()
            page.until(f"{SHOWN} >= 4", DEADLINE_S)
            reached = page.run(SHOWN)
            walk(page, reached + 1, DEADLINE_S)
            assert other.complaints == []
            reached = page.run(SHOWN)
        with Serving(ray_cluster, tmp_path, port, settings=("sampling.steps=4",)) as serving:
            page.until("document.getElementById('link').textContent === 'live'", DEADLINE_S)
            walk(page, reached + 1, DEADLINE_S)
            page.until(f"{TIME} > {(reached + 0.5) * CHUNK_S}", DEADLINE_S)
            page.run("document.getElementById('finish').click()")
            page.until("!document.getElementById('download').hidden", DEADLINE_S)
            page.screenshot(ARTIFACTS / "page-tiny-finished.png")
            ear.join(DEADLINE_S)
            assert not ear.is_alive()
    previews = [chunk for kind, chunk in ear.order if kind == "preview"]
    assert previews, "the decode lanes have shown what they were about to decode"
    for chunk in previews:
        if ("decoded", chunk) in ear.order:
            assert ear.order.index(("preview", chunk)) < ear.order.index(("decoded", chunk))

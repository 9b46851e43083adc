"""What goes wrong around the page: breaks, ends from elsewhere, quotas, a full player, no token, a stray file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gamecraft_core.base.errors import BadInput, FramelaneError
from gamecraft_core.base.messages import DenoiseOrder, Order
from gamecraft_core.base.store import open_store
from orchestrator.http.client import Client
from orchestrator.http.gate import Rules, digest
from orchestrator.live.limits import Quota, ServiceLimits
from tests.fakes.studio import Studio, grainy_frames, picture
from tests.fakes.web import begun, finished, quick, quick_studio, served
from tests.servers.browser import Browser, Page, browser
from tests.servers.child import free_port
from tests.service.walking import CHUNK_S, SHOWN, TIME, WATCH, begin, choose, text, walk

pytestmark = pytest.mark.service

#: Keeps the page's sockets, and the codes that they were closed with.
SOCKETS = """
window.sockets = [];
window.codes = [];
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    window.sockets.push(this);
    this.addEventListener("close", ({ code }) => window.codes.push(code));
  }
};
"""
#: Counts how often the player's buffer was full.
REFUSALS = """
window.refusals = 0;
const append = SourceBuffer.prototype.appendBuffer;
SourceBuffer.prototype.appendBuffer = function (data) {
  try { return append.call(this, data); } catch (error) { window.refusals += 1; throw error; }
};
"""
#: How far the video reached whenever its end was declared.
ENDS = """
window.ends = [];
const end = MediaSource.prototype.endOfStream;
MediaSource.prototype.endOfStream = function () {
  const { buffered } = this.sourceBuffers[0];
  window.ends.push(buffered.length ? buffered.end(buffered.length - 1) : 0);
  return end.call(this);
};
"""
#: When the key D went down, and when the last "key to picture" came.
LATENCY = """
addEventListener("keydown", ({ key, timeStamp }) => { if (key === "d") window.asked = timeStamp; });
addEventListener("DOMContentLoaded", () =>
  new MutationObserver(() => { window.came = performance.now(); })
    .observe(document.getElementById("n-latency"), { childList: true }));
"""
WALKS = "Walk with W A S D, look around with the arrow keys."
BUSY = "document.getElementById('veil').classList.contains('busy')"
ALERT = "!document.getElementById('error').hidden && document.getElementById('error').textContent"


def shown(element: str) -> str:
    return f"!document.getElementById('{element}').hidden"


def slow(seconds: float) -> Callable[[Order], float]:
    return lambda order: seconds if isinstance(order, DenoiseOrder) else quick(order)


def studio(**changes: Any) -> Studio:
    return Studio(open_store(f"memory://{uuid4().hex}"), aside=asyncio.to_thread, **changes)


def play(page: Page) -> None:
    page.run("document.getElementById('play').click()")


def test_a_token_opens_the_world_that_was_asked_for(chromium: Browser) -> None:
    enter = "document.getElementById('token').value = 'secret-a'"
    rules = Rules(tokens={digest("secret-a"): "ann"})
    with served(quick_studio, rules) as web, chromium.page(web.url) as page:
        page.ask("Network.clearBrowserCookies")
        page.reload()
        page.until(shown("tokenfield"))
        choose(page)
        page.run(enter)
        play(page)
        page.until(shown("stage"))
        name = page.run("location.hash")
        page.ask("Network.clearBrowserCookies")
        page.reload()
        page.until(shown("tokenfield"))
        page.run(enter)
        play(page)
        page.until("document.getElementById('link')?.textContent === 'live'")
        walk(page, 1)
        assert page.run("location.hash") == name
        listed = httpx.get(f"{web.url}/v1/sessions", headers={"Authorization": "Bearer secret-a"}).json()["sessions"]
        assert [f"#{session['id']}" for session in listed] == [name]


def test_a_world_that_is_gone_is_not_asked_for_again(chromium: Browser) -> None:
    port = free_port()
    with ExitStack() as tab:
        with served(quick_studio, port=port) as web:
            page = tab.enter_context(chromium.page(web.url, before=SOCKETS))
            begin(page)
            walk(page, 1)
        with served(quick_studio, port=port):  # on another store, which has never heard of it
            page.until("codes.includes(4000)")
            assert text(page, "link") == "ended"
            assert "there is no session" in page.run(ALERT)
            assert text(page, "status") == "It is over."


def test_a_break_is_forgotten_when_it_is_over(chromium: Browser) -> None:
    with served(quick_studio) as web, chromium.page(web.url, before=SOCKETS) as page:
        begin(page)
        walk(page, 1)
        assert text(page, "status") == WALKS
        page.run("sockets[0].close()")
        page.until("sockets.length === 2 && document.getElementById('link').textContent === 'live'")
        assert text(page, "status") == WALKS
        page.reload()
        page.until(f"{SHOWN} >= 1 && !{BUSY}")  # nothing is being made


def test_a_world_that_was_called_off_says_so(chromium: Browser) -> None:
    with served(lambda: studio(behaviour=slow(1e6))) as web, httpx.Client(base_url=web.url) as http:
        name = begun(http, actions="w")["id"]
        with chromium.page(f"{web.url}/#{name}") as page, chromium.page(f"{web.url}/#{name}") as late:
            for each in (page, late):
                each.until(f"{shown('stage')} && {BUSY}")
            assert http.post(f"/v1/sessions/{name}/cancel").is_success
            page.until("document.getElementById('status').textContent === 'Called off.'")
            late.reload()
            late.until("document.getElementById('status').textContent === 'Called off.'")
            for each in (page, late):
                assert not each.run(BUSY)
                assert not each.run(shown("finish"))
                assert text(each, "link") == "ended"


def test_a_world_that_failed_says_why(chromium: Browser) -> None:
    def broken(order: Order) -> float | FramelaneError:
        return BadInput("the lanes choke on it", remedy="begin another") if isinstance(order, DenoiseOrder) else 0.01

    with served(lambda: studio(behaviour=broken)) as web, chromium.page(web.url) as page:
        begin(page)
        page.press("w")
        for _ in range(2):
            assert "choke on it begin another" in page.until(ALERT)
            assert text(page, "status") == "It is over."
            assert not page.run(BUSY)
            page.reload()


def test_a_quota_is_told_while_it_lasts(chromium: Browser) -> None:
    limits = ServiceLimits(quota=Quota(chunks=1), retry_seconds=1)
    with served(lambda: studio(behaviour=slow(2.0), service=limits)) as web, chromium.page(web.url) as page:
        begin(page)
        page.press("w")
        assert "of your chunks are not made yet" in page.until(ALERT)
        page.press("w", up=True)
        page.until(f"{SHOWN} >= 1 && document.getElementById('error').hidden")


def test_a_picture_is_dropped_and_none_opens_instead_of_the_world(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    path.write_bytes(picture())

    def drop(page: Page) -> None:
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            page.ask("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)

    with served(quick_studio) as web, chromium.page(web.url) as page:
        drop(page)
        page.until(shown("chosen"))
        play(page)
        page.until(shown("stage"))
        page.run("addEventListener('drop', (event) => { window.kept = event.defaultPrevented; })")
        drop(page)
        page.until("window.kept")
        walk(page, 1)


def test_key_to_picture_begins_at_the_key(chromium: Browser) -> None:
    with served(lambda: studio(behaviour=slow(1.0))) as web, chromium.page(web.url, before=LATENCY) as page:
        begin(page)
        for chunk in (1, 2):
            page.press("w")
            page.press("w", up=True)
            page.until(f"document.getElementById('n-ahead').textContent === '{chunk}'")
        page.press("d")
        page.press("d", up=True)
        page.until(f"{SHOWN} >= 3")
        seconds = float(text(page, "n-latency").removesuffix(" s"))
        assert seconds == pytest.approx(page.run("(came - asked) / 1000"), abs=0.1)


def test_a_world_that_is_over_ends_with_its_last_segment(tmp_path: Path) -> None:
    """Not with the news that it is over, which come first."""
    with served(quick_studio) as web, httpx.Client(base_url=web.url) as http, Client(web.url) as client:
        name = finished(client, http, "w d a")
        with browser() as chromium, chromium.page(f"{web.url}/#{name}", before=ENDS) as page:
            page.until("ends.length")
            page.until(f"document.getElementById('video').ended && {TIME} > {2.9 * CHUNK_S}")
            assert page.run("ends") == pytest.approx([3 * CHUNK_S], abs=0.05)
            assert page.complaints == []


def test_a_long_world_plays_through_a_player_that_is_soon_full(tmp_path: Path) -> None:
    chunks = 20
    small = "--mse-video-buffer-size-limit-mb=1"
    with (
        served(lambda: studio(behaviour=lambda order: 0.001, pictures=grainy_frames)) as web,
        httpx.Client(base_url=web.url) as http,
        Client(web.url) as client,
        browser(small) as chromium,
    ):
        name = str(begun(http, actions=f"w*{chunks}", height=96, width=144)["id"])
        client.finish(name)
        assert [piece.event.get("type") for piece in client.watch(name)][-1] == "committed"
        with chromium.page(f"{web.url}/#{name}", before=REFUSALS) as page:
            page.run(WATCH)
            page.until(f"{shown('stage')} && {TIME} > 0")
            page.run("document.getElementById('video').playbackRate = 16")
            page.until(f"{TIME} > {(chunks - 0.5) * CHUNK_S}")
            assert page.run("refusals") > 0
            assert page.complaints == []

"""Ways to the page: without Media Source Extensions, by keyboard alone, on a phone; and what goes wrong on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from gamecraft_core.base.messages import DecodeOrder, DenoiseOrder, Order
from gamecraft_core.base.store import open_store
from orchestrator.limits import Limits
from tests.fakes.recordings import level_of
from tests.fakes.studio import Studio
from tests.fakes.web import Web, served
from tests.fakes.world import usual
from tests.servers.browser import Browser, Page
from tests.service.walking import ARTIFACTS, CHUNK_S, SHOWN, begin, choose, text, walk

pytestmark = pytest.mark.service

#: Browsers that play no segments: there is nothing to play them with, it says so, or it says so too late.
WITHOUT_MSE = {
    "absent": "delete window.MediaSource; delete window.ManagedMediaSource",
    "codec": "MediaSource.isTypeSupported = () => false",
    "late": "MediaSource.prototype.addSourceBuffer = () => { throw new DOMException('no', 'NotSupportedError') }",
}

SEEN = "Number.parseFloat(document.getElementById('clock').textContent)"
GREY = "document.getElementById('frames').getContext('2d').getImageData(9, 9, 1, 1).data[0]"
NAMED = ("button", "textbox", "radio", "slider", "spinbutton", "progressbar", "link")


def studio(behaviour: Callable[[Order], float] = lambda order: usual(order) * 0.05, **changes: Any) -> Studio:
    store = open_store(f"memory://{uuid4().hex}")
    return Studio(store, aside=asyncio.to_thread, behaviour=behaviour, **changes)


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with served(studio) as running:
        yield running


@pytest.mark.parametrize("way", WITHOUT_MSE)
def test_a_browser_that_plays_no_segments_draws_their_frames(chromium: Browser, web: Web, way: str) -> None:
    with chromium.page(web.url, before=WITHOUT_MSE[way]) as page:
        begin(page)
        walk(page, 1)
        page.until(f"{SEEN} >= {CHUNK_S:.1f} || {SHOWN} > 1")
        page.run("document.getElementById('finish').click()")
        page.until("!document.getElementById('download').hidden")
        page.until("document.getElementById('n-ahead').textContent === '0'")
        last = page.run(SHOWN) * 33
        page.until(f"{SEEN} >= {last / 25 - 0.05:.2f}")
        assert page.run(GREY) == pytest.approx(level_of(last - 1), abs=4)
        assert page.run("document.getElementById('video').hidden")
        assert page.complaints == []
        page.reload()
        page.until(f"{SEEN} > 1")


def test_a_preview_shows_until_the_frames_come(chromium: Browser) -> None:
    def slow_to_decode(order: Order) -> float:
        return {DecodeOrder: 1.5, DenoiseOrder: 0.2}.get(type(order), 0.01)

    with served(lambda: studio(slow_to_decode)) as web, chromium.page(web.url) as page:
        begin(page)
        page.press("w")
        page.until("!document.getElementById('preview').hidden")
        assert page.run(SHOWN) == 0
        assert page.run("document.querySelector('#preview canvas').width") == 6
        page.press("w", up=True)
        page.until(f"{SHOWN} >= 1")
        page.until("document.getElementById('n-ahead').textContent === '0'")
        assert page.run("document.getElementById('preview').hidden")
        assert page.complaints == []


def focused(page: Page) -> str:
    """What has the focus: its id, its action or its name."""
    return str(page.run("(({id, dataset, name}) => id || dataset.action || name)(document.activeElement)"))


def tabbed(page: Page, until: str) -> list[str]:
    """Go on by Tab until ``until`` has the focus; what had it on the way."""
    way: list[str] = []
    while not way or way[-1] != until:
        page.tap("Tab")
        way.append(focused(page))
        assert len(way) < 30, way
    return way


def test_the_keyboard_alone_is_enough(chromium: Browser, web: Web) -> None:
    with chromium.page(web.url) as page:
        page.until("document.querySelectorAll('[name=start]').length > 3")
        assert tabbed(page, "start") == ["image", "start"]
        page.tap("Space")
        page.until("!document.getElementById('chosen').hidden")
        page.tap("ArrowDown")
        page.until("document.getElementById('prompt').value === 'a orange corridor at dusk, misty'")
        assert tabbed(page, "play") == ["prompt", "seed", "play"]
        page.tap("Enter")
        page.until("!document.getElementById('stage').hidden")
        assert focused(page) == "screen"
        page.press("d")
        assert page.run("document.querySelector('[data-action=d]').getAttribute('aria-pressed')") == "true"
        page.press("d", up=True)
        page.until(f"{SHOWN} >= 1")
        turns = ["up_rot", "left_rot", "down_rot", "right_rot"]
        order = tabbed(page, "right_rot")
        assert order == ["w", "a", "s", "d", "move", "turn", "finish", "share", "full", "again", *turns]
        page.tap("Enter")
        page.until(f"{SHOWN} >= 2")
        names = page.ask("Accessibility.getFullAXTree")["nodes"]
        nameless = [node for node in names if node.get("role", {}).get("value") in NAMED and not _name(node)]
        assert nameless == []
        page.run("document.getElementById('finish').focus()")
        page.tap("Enter")
        page.until("!document.getElementById('download').hidden")
        assert page.complaints == []


def _name(node: dict[str, Any]) -> str:
    return "ignored" if node["ignored"] else str(node.get("name", {}).get("value", ""))


def test_fingers_on_a_phone(chromium: Browser, web: Web) -> None:
    wide = "document.documentElement.scrollWidth <= innerWidth"
    with chromium.page(web.url, phone=True) as page:
        page.until("document.querySelectorAll('.shelf img').length > 3")
        assert page.run(wide)
        page.screenshot(ARTIFACTS / "page-phone-begin.png")
        begin(page)
        assert page.run(wide)
        small = "[...document.querySelectorAll('#pads button')].filter((each) => each.offsetHeight < 40).length"
        assert page.run(small) == 0
        page.touch("[data-action=left_rot]")
        page.until("document.querySelector('[data-action=left_rot]').getAttribute('aria-pressed') === 'true'")
        page.until(f"{SHOWN} >= 2")
        page.screenshot(ARTIFACTS / "page-phone.png")
        page.touch("[data-action=left_rot]", up=True)
        page.until("document.querySelector('[data-action=left_rot]').getAttribute('aria-pressed') === 'false'")
        assert page.complaints == []


def test_what_is_wrong_can_be_read(chromium: Browser, web: Web) -> None:
    full = Limits(max_sessions=1, max_queued=0)
    with served(lambda: studio(limits=full)) as crowded, chromium.page(crowded.url) as page:
        page.run("document.getElementById('play').click()")
        assert text(page, "error") == "Choose a picture first."
        choose(page, b"words", "text/plain")
        assert text(page, "error") == "That is not a picture."
        begin(page)
        assert page.run("document.getElementById('error').hidden")
        address = page.run("location.href")
        with chromium.page(crowded.url) as late:
            choose(late)
            late.run("document.getElementById('play').click()")
            late.until("!document.getElementById('error').hidden")
            assert "try again in" in text(late, "error")
            assert late.run("!document.getElementById('begin').hidden")
            late.run("location.hash = '#nothing-there'")
            late.until("document.getElementById('status')?.textContent.includes('not there any more')")
            late.open(address)
            late.until("document.getElementById('stage')?.hidden === false")


def test_a_world_has_an_address_to_share(chromium: Browser, web: Web) -> None:
    no_clipboard = "delete Navigator.prototype.clipboard; delete Navigator.prototype.share"
    with chromium.page(web.url, before=no_clipboard) as page:
        begin(page)
        page.run("document.getElementById('share').click()")
        page.until("!document.getElementById('address').hidden")
        assert page.run("document.getElementById('address').value === location.href")
        assert page.run("location.hash.length > 8")


def test_speeds_are_the_presets_and_turns_can_be_seen(chromium: Browser, web: Web) -> None:
    with chromium.page(web.url) as page:
        begin(page)
        sliders = "['move', 'turn'].map((id) => document.getElementById(id))"
        values = page.run(f"{sliders}.map(({{ value, max }}) => [Number(value), Number(max)])")
        assert values == [[pytest.approx(0.2), 3], [pytest.approx(1.5), 3]]
        name = str(page.run("location.hash")).removeprefix("#")
        walk(page, 1)
        described = web.ask(web.studio.service.describe(name, "default"))
        assert described["speeds"] == {"move": {"default": 0.2, "most": 3.0}, "turn": {"default": 0.2, "most": 3.0}}

"""The page with models of every family: it asks for what each begins from, and says when a video's end is made first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gamecraft_core.base.messages import DenoiseOrder, Order
from gamecraft_core.base.store import open_store
from gamecraft_core.media.fragment import VideoFacts, probe
from orchestrator.http.gate import Rules, digest
from tests.fakes.recordings import level_of
from tests.fakes.studio import Studio, preset
from tests.fakes.web import Web, quick, served
from tests.servers.browser import Browser, Page
from tests.service.test_page_ways import GREY, SEEN, WITHOUT_MSE
from tests.service.walking import ARTIFACTS, PAINTED, SHOWN, TIME, begin, text

pytestmark = pytest.mark.service

NAMES = ("tiny-gamecraft", "tiny-hunyuan-video", "tiny-framepack", "tiny-framepack-f1")
FRAMES = 109
#: Counts what is drawn where a browser plays no segments.
DRAWS = """
window.drawn = 0;
const draw = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (...given) {
  if (this.canvas.id === "frames") window.drawn += 1;
  return draw.apply(this, given);
};
"""


def studio() -> Studio:
    def behaviour(order: Order) -> float:
        return 1.0 if isinstance(order, DenoiseOrder) else quick(order)

    store = open_store(f"memory://{uuid4().hex}")
    return Studio(store, aside=asyncio.to_thread, behaviour=behaviour, served=[preset(name) for name in NAMES])


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with served(studio) as running:
        yield running


def pick(page: Page, model: str) -> dict[str, Any]:
    """Choose a model; what the form asks for then."""
    page.until(f"document.getElementById('preset').options.length === {len(NAMES)}")
    page.run(
        f"(({{ style }}, box) => {{ box.value = '{model}'; box.dispatchEvent(new Event('change')); }})"
        "(document.body, document.getElementById('preset'))"
    )
    ids = ("drop", "keys", "lengthfield")
    asked: dict[str, Any] = {each: page.run(f"!document.getElementById('{each}').hidden") for each in ids}
    return asked | {text(page, "lengthname"): page.run("document.getElementById('length').value")}


def kept(page: Page) -> VideoFacts:
    """Wait for the end; the video that the page offers."""
    page.until("!document.getElementById('download').hidden")
    assert text(page, "status") == "Done. It is yours to keep."
    page.until("document.getElementById('n-ahead').textContent === '0'")
    return probe(httpx.get(page.run("document.getElementById('download').href")).content)


def test_a_video_is_made_from_words_alone(chromium: Browser, web: Web) -> None:
    with chromium.page(web.url) as page:
        assert pick(page, "tiny-gamecraft") == {"drop": True, "keys": True, "lengthfield": False, "Seconds": ""}
        asked = pick(page, "tiny-hunyuan-video")
        assert asked == {"drop": False, "keys": False, "lengthfield": True, "Frames": "33"}
        page.run("document.getElementById('length').value = 500")
        page.run("document.getElementById('play').click()")
        page.until("!document.getElementById('error').hidden")
        assert text(page, "error").startswith("frames: ")
        page.run("document.getElementById('length').value = 17")
        page.run("document.getElementById('play').click()")
        page.until("!document.getElementById('stage').hidden")
        page.until("document.getElementById('status').textContent === 'It is being made.'")
        assert page.run("[...document.querySelectorAll('.pad, .speeds, #finish')].every(({ hidden }) => hidden)")
        assert kept(page).frames == 17
        assert page.run(SHOWN) == 1
        page.until(f"{TIME} >= 16 / 24")
        assert [each for each in page.complaints if "422" not in each] == []


def test_the_end_is_made_first_and_the_page_says_so(chromium: Browser, web: Web) -> None:
    with chromium.page(web.url) as page:
        asked = pick(page, "tiny-framepack")
        assert asked == {"drop": True, "keys": False, "lengthfield": True, "Seconds": "3.6"}
        page.run("document.getElementById('play').click()")
        page.until("document.getElementById('error').textContent === 'Choose a picture first.'")
        begin(page)
        words = "document.getElementById('status').textContent"
        page.until(f"{words}.includes('made from its end back to the picture')")
        page.until("!document.getElementById('preview').hidden")
        assert text(page, "previewname") == "preview of the end, not final"
        assert page.run(SHOWN) == 0
        page.screenshot(ARTIFACTS / "page-inverted.png")
        page.reload()
        page.until("document.getElementById('status')?.textContent.includes('from its end back')")
        facts = kept(page)
        assert (facts.frames, facts.fps, facts.monotonic) == (FRAMES, 30, True)
        assert page.run("document.getElementById('preview').hidden")
        assert page.run(SHOWN) == 3
        assert page.run(PAINTED) == ["denoise", "decode", "write"]
        page.until(f"{TIME} >= {(FRAMES - 1) / 30}")
        assert page.run("document.getElementById('video').buffered.start(0)") == 0
        assert page.complaints == []


@pytest.mark.parametrize(("model", "way"), [("tiny-framepack", "late"), ("tiny-framepack-f1", "codec")])
def test_sections_of_unequal_length_are_drawn_in_their_time(chromium: Browser, web: Web, model: str, way: str) -> None:
    with chromium.page(web.url, before=WITHOUT_MSE[way] + ";" + DRAWS) as page:
        pick(page, model)
        begin(page)
        kept(page)
        page.until(f"window.drawn >= {FRAMES} && {SEEN} >= 3.6")
        assert page.run("window.drawn") == FRAMES
        assert page.run(SEEN) == 3.6
        seed = preset(model).sampling.seed
        assert page.run(GREY) == pytest.approx(level_of(FRAMES - 1, seed), abs=4)
        assert page.complaints == []


def test_a_token_shows_what_is_served(chromium: Browser) -> None:
    with served(studio, Rules(tokens={digest("secret-a"): "ann"})) as web, chromium.page(web.url) as page:
        page.until("!document.getElementById('tokenfield').hidden")
        assert page.run("document.getElementById('presetfield').hidden")
        page.run("document.getElementById('token').value = 'secret-a'")
        page.run("document.getElementById('token').dispatchEvent(new Event('change'))")
        assert pick(page, "tiny-hunyuan-video")["lengthfield"]
        assert page.run("document.getElementById('error').hidden")
        page.run("document.getElementById('play').click()")
        page.until("!document.getElementById('stage').hidden")
        page.until("!document.getElementById('download').hidden")

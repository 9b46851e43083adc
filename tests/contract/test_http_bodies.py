"""The API over a real web server: bodies that are too long, too many, or large but right."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from orchestrator.http.gate import Rules
from tests.fakes.web import Web, quick_studio, served


def test_too_much_is_cut_off_while_it_comes() -> None:
    with served(quick_studio, replace(Rules(), max_body_bytes=10_000)) as web, httpx.Client(base_url=web.url) as http:
        known = http.post("/v1/sessions", content=b"x" * 20_000)
        pieces = (b"x" * 1000 for _ in range(20))
        unknown = http.post("/v1/sessions", content=pieces)
        assert (known.status_code, known.json()["error"]["type"]) == (413, "too_large")
        assert (unknown.status_code, unknown.json()) == (413, known.json())


def test_only_a_start_may_be_large(http: httpx.Client) -> None:
    large = b"x" * ((4 << 20) + 1)
    for path, status in (("/v1/sessions", 422), ("/v1/videos", 422), ("/v1/sessions/any/controls", 413)):
        for content in (large, iter([large[: 1 << 20]] * 5)):
            assert http.post(path, content=content).status_code == status, path


def test_bodies_under_way_have_a_bound_together() -> None:
    read, refused = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"x" * 600
        assert refused.wait(30)
        yield b"x" * 300

    def charged(tenant: str, size: int) -> None:
        if size:
            read.set()

    with (
        served(quick_studio, replace(Rules(), max_bodies_bytes=1000)) as web,
        httpx.Client(base_url=web.url) as http,
        ThreadPoolExecutor(1) as aside,
    ):
        web.studio.service.charge = charged
        slow = aside.submit(httpx.post, f"{web.url}/v1/sessions", content=pieces())
        assert read.wait(30)
        answer = http.post("/v1/sessions", content=b"x" * 600)
        refused.set()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["error"]["field"] == "body"
        assert slow.result(30).status_code == 422, "it was read"
        assert http.post("/v1/sessions", content=b"x" * 1000).status_code == 422, "there is room again"


async def loop_thread() -> int:
    return threading.get_ident()


def test_an_inline_picture_is_decoded_beside_the_event_loop(
    web: Web, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, decoded, threads = b"picture" * 300_000, list[bytes](), set[int]()

    def decode(data: str, validate: bool) -> bytes:
        threads.add(threading.get_ident())
        decoded.append(binascii.a2b_base64(data, strict_mode=validate))
        return decoded[-1]

    monkeypatch.setattr(base64, "b64decode", decode)
    inline = "data:image/png;base64," + base64.b64encode(sent).decode()
    answer = http.post("/v1/sessions", json={"prompt": "x", "image": inline, "video": inline})
    assert answer.json()["error"]["field"] == "image", "there is one start too many"
    assert b"".join(decoded) == sent
    assert len(decoded) > 1, "others run in between"
    assert threads.isdisjoint({web.ask(loop_thread())})

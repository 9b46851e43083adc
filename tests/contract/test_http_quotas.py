"""What one token's owner may have: refused with 429, the field named, while others notice nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from gamecraft_core.dataset import layout
from orchestrator.http.client import Client
from orchestrator.http.gate import Rules, digest
from orchestrator.live.limits import Quota, ServiceLimits
from tests.fakes.studio import picture
from tests.fakes.web import Web, quick_studio, served, stuck_studio

RULES = Rules(tokens={digest("secret-a"): "ann", digest("secret-b"): "bob"})


def served_with(*, makes: bool = True, **quota: int) -> Any:
    """A service on which ann has ``quota`` and bob has none; its chunks are made, or never come."""

    studio = quick_studio if makes else stuck_studio
    return served(lambda: studio(service=ServiceLimits(quotas={"ann": Quota(**quota)})), RULES)


@pytest.fixture
def ann() -> Iterator[httpx.Client]:
    with httpx.Client(headers={"Authorization": "Bearer secret-a"}) as http:
        yield http


@pytest.fixture
def bob() -> Iterator[httpx.Client]:
    with httpx.Client(headers={"Authorization": "Bearer secret-b"}) as http:
        yield http


def begin(http: httpx.Client, web: Web, **fields: Any) -> httpx.Response:
    return http.post(f"{web.url}/v1/sessions", data={"prompt": "x"} | fields, files={"image": picture()})


def refused(answer: httpx.Response, field: str) -> dict[str, Any]:
    assert answer.status_code == 429, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert (error["type"], error["field"]) == ("over_quota", field)
    assert error["remedy"]
    assert int(answer.headers["retry-after"]) >= error["retry_after"] > 0
    return error


def test_sessions_at_once(ann: httpx.Client, bob: httpx.Client) -> None:
    with served_with(makes=False, sessions=2) as web:
        first = begin(ann, web, actions="w").json()["id"]
        assert begin(ann, web, actions="w").status_code == 201
        refused(begin(ann, web, actions="w"), "sessions")
        refused(ann.post(f"{web.url}/v1/videos", data={"prompt": "x"}), "sessions")
        assert "position" not in refused(ann.post(f"{web.url}/v1/sessions", content=b"{"), "sessions"), "unread"
        assert len(list(web.studio.store.list(layout.SESSIONS))) == 2, "who is refused leaves nothing"
        assert begin(bob, web, actions="w").status_code == 201
        assert ann.post(f"{web.url}/v1/sessions/{first}/cancel").is_success
        assert begin(ann, web, actions="w").status_code == 201


def test_chunks_that_wait(ann: httpx.Client, bob: httpx.Client) -> None:
    with served_with(makes=False, chunks=4) as web:
        refused(begin(ann, web, actions="w*5"), "chunks")
        name = begin(ann, web, actions="w*2").json()["id"]
        other = begin(ann, web, actions="w").json()["id"]
        controls = f"{web.url}/v1/sessions/{name}/controls"
        refused(ann.post(controls, json={"actions": "d*2", "at": 2}), "chunks")
        assert ann.post(controls, json={"actions": "d", "at": 2}).is_success
        refused(ann.post(controls, json={"actions": "d"}), "chunks")
        assert ann.post(controls, json={"actions": "d", "at": 2}).is_success, "it was accepted before"
        address = f"ws{web.url.removeprefix('http')}/v1/sessions/{other}/stream"
        with connect(address, additional_headers={"Authorization": "Bearer secret-a"}) as socket:
            socket.send(json.dumps({"actions": "w", "ref": 1}))
            answer = next(told for message in socket if "ref" in (told := json.loads(message)))
        assert (answer["type"], answer["error"]["field"]) == ("error", "chunks")
        assert begin(bob, web, actions="w*9").status_code == 201


def test_chunks_that_came_count_no_more(ann: httpx.Client) -> None:
    with served_with(chunks=2) as web, Client(web.url, "secret-a") as client:
        name = begin(ann, web, actions="w*2").json()["id"]
        for piece in client.watch(name):
            if piece.chunk == 1:
                assert client.control(name, "d*2", 2)["count"] == 2
            if piece.chunk == 3:
                client.finish(name)
        assert client.describe(name)["status"] == "committed"


def test_bytes_an_hour(ann: httpx.Client, bob: httpx.Client) -> None:
    with served_with(upload_bytes=20_000) as web:
        url = f"{web.url}/v1/sessions"
        wrong = ann.post(url, content=b"{" + b" " * 11_999)
        assert wrong.json()["error"]["field"] == "body", "it was read"
        told = refused(ann.post(url, content=b"x" * 12_000), "upload_bytes")
        assert told["retry_after"] == pytest.approx(4000 * 3600 / 20_000, rel=0.05)
        refused(ann.post(url, content=(b"x" * 1000 for _ in range(12))), "upload_bytes")
        refused(ann.post(f"{url}/x/controls", content=b"x" * 12_000), "upload_bytes")
        assert bob.post(url, content=b"x" * 12_000).status_code == 422
        assert ann.get(url).is_success
        assert begin(bob, web, actions="w").status_code == 201

"""The API over a real web server: what is refused and how, and what slow, late and strange clients do to it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from gamecraft_core.base.store import open_store
from gamecraft_core.dataset import layout
from orchestrator.http.client import Client, ServiceError
from orchestrator.http.gate import Rules, digest
from orchestrator.limits import Limits
from orchestrator.live.limits import ServiceLimits
from tests.fakes.studio import Studio, picture
from tests.fakes.web import Web, begun, finished, quick_studio, served, stuck_studio


@pytest.mark.parametrize(
    ("request_", "status", "field"),
    [
        ({"content": b"{"}, 422, "body"),
        ({"json": ["w"]}, 422, "body"),
        ({"json": {"prompt": "x"}}, 422, "image"),
        ({"json": {"prompt": "x", "image": "data:image/png;base64,@@"}}, 422, "image"),
        ({"json": {"prompt": "x", "image": "file:///etc/passwd"}}, 422, "image"),
        ({"data": {"prompt": "x"}, "files": {"image": b"no picture"}}, 422, "image"),
        ({"data": {"prompt": "x"}, "files": {"extra": b"?"}}, 422, "extra"),
        ({"data": {"prompt": "x", "steps": "many"}, "files": {"image": picture()}}, 422, "steps"),
        ({"data": {"prompt": "x", "color": "red"}, "files": {"image": picture()}}, 422, "color"),
    ],
)
def test_what_is_wrong_is_said(http: httpx.Client, request_: dict[str, Any], status: int, field: str) -> None:
    answer = http.post("/v1/sessions", **request_)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["field"], error["type"]) == (field, "invalid")
    assert error["message"]
    assert error["remedy"]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/json", b"\xff{"),
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"no boundary"),
    ],
)
def test_what_cannot_be_read_is_refused_with_one_status(http: httpx.Client, kind: str, content: bytes) -> None:
    for path in ("/v1/sessions", "/v1/videos", "/v1/sessions/any/controls"):
        answer = http.post(path, content=content, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid"), (path, answer.text)


def test_another_method_is_told_all_that_the_path_takes(http: httpx.Client) -> None:
    for path, methods in (("/v1/sessions", "GET, POST"), ("/v1/videos/any", "DELETE, GET"), ("/healthz", "GET")):
        answer = http.put(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def test_states_that_do_not_allow_it_are_conflicts(http: httpx.Client, client: Client) -> None:
    name = begun(http)["id"]
    for path in ("video.mp4", "records"):
        answer = http.get(f"/v1/sessions/{name}/{path}")
        assert answer.status_code == 409
        assert "finish" in answer.json()["error"]["remedy"]
    done = finished(client, http, "w")
    assert http.post(f"/v1/sessions/{done}/controls", json={"actions": "w"}).status_code == 409
    assert http.post(f"/v1/sessions/{name}/controls", json={"actions": "w", "at": 5}).status_code == 409
    assert http.post(f"/v1/sessions/{name}/controls", json={"actions": "w", "at": -1}).status_code == 422
    assert http.post(f"/v1/sessions/{name}/controls", json={"actoins": "w"}).status_code == 422
    assert http.post(f"/v1/sessions/{done}/finish").json()["status"] == "committed"


def test_overload_is_answered_with_the_place_and_when_to_come_again() -> None:
    with served(lambda: stuck_studio(max_sessions=1, max_queued=1)) as web, httpx.Client(base_url=web.url) as http:
        begun(http, actions="w")
        asked: dict[str, Any] = {"data": {"prompt": "x"}, "files": {"image": picture()}}
        queued = http.post("/v1/sessions", **asked)
        assert (queued.status_code, queued.json()["position"]) == (202, 1)
        web.studio.engine.offer = None  # type: ignore[assignment,method-assign]
        refused = http.post("/v1/sessions", **asked)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json()["error"]["position"] == 2
        unread = http.post("/v1/sessions", content=b"{")
        assert unread.status_code == 429, "nothing else is done for who cannot come in"
        stored = list(web.studio.store.list(layout.SESSIONS))
        assert len(stored) == 2, "who is refused leaves nothing"


def test_controls_too_far_ahead_are_refused_by_their_field(http: httpx.Client) -> None:
    name = begun(http)["id"]
    refused = http.post(f"/v1/sessions/{name}/controls", json={"actions": f"w*{ServiceLimits().max_ahead + 1}"})
    assert (refused.status_code, refused.json()["error"]["field"]) == (429, "actions")


def test_a_repeated_request_gets_its_session_where_there_is_no_room() -> None:
    def make() -> Studio:
        return quick_studio(limits=Limits(max_sessions=1, max_queued=0))

    def ask(key: str) -> httpx.Response:
        return http.post(
            "/v1/sessions", data={"prompt": "x"}, files={"image": picture()}, headers={"Idempotency-Key": key}
        )

    with served(make) as web, httpx.Client(base_url=web.url) as http:
        first = ask("mine")
        web.studio.engine.offer = None  # type: ignore[assignment,method-assign]
        assert (ask("mine").status_code, ask("mine").json()["id"]) == (201, first.json()["id"])
        assert (ask("another").status_code, ask("").status_code) == (429, 429)
        assert len(list(web.studio.store.list(layout.SESSIONS))) == 1, "who is refused leaves nothing"


def test_tokens_are_tenants() -> None:
    rules = Rules(tokens={digest("secret-a"): "ann", digest("secret-b"): "bob"})
    with served(quick_studio, rules) as web, httpx.Client(base_url=web.url) as http:
        assert http.get("/readyz").status_code == 200
        assert http.get("/v1/sessions").status_code == 401
        assert http.get("/v1/sessions", headers={"Authorization": "Bearer wrong"}).status_code == 401
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws{web.url.removeprefix('http')}/v1/sessions/x/stream")
        assert refused.value.response.status_code == 401
        with Client(web.url, "secret-a") as ann, Client(web.url, "secret-b") as bob:
            name = ann.create("x", image=picture(), actions="w")["id"]
            with pytest.raises(ServiceError, match="no session"):
                bob.describe(name)
            with pytest.raises(ServiceError, match="no session"):
                list(bob.watch(name))
            assert bob.sessions()["sessions"] == []
            assert [each["id"] for each in ann.sessions()["sessions"]] == [name]
        cookie = {"Cookie": "framelane_token=secret-a"}
        assert http.get(f"/v1/sessions/{name}", headers=cookie).status_code == 200


def test_pages_of_other_origins_and_names_stay_outside(web: Web, http: httpx.Client) -> None:
    assert http.get("/v1/sessions", headers={"Origin": "https://evil.example"}).status_code == 403
    assert http.get("/v1/sessions", headers={"Origin": web.url}).status_code == 200
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws{web.url.removeprefix('http')}/v1/sessions/x/stream", origin=Origin("https://evil.example"))
    assert refused.value.response.status_code == 403
    rules = Rules(hosts=frozenset({"127.0.0.1"}), origins=frozenset({"https://page.example"}))
    with served(quick_studio, rules) as other, httpx.Client(base_url=other.url) as named:
        assert named.get("/healthz", headers={"Host": "rebound.example"}).status_code == 403
        answer = named.get("/v1/sessions", headers={"Origin": "https://page.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://page.example")
        assert "access-control-allow-origin" not in http.get("/v1/sessions").headers


def test_a_named_origins_page_may_send_and_read_every_header_of_the_api() -> None:
    origin = {"Origin": "https://page.example"}
    rules = Rules(tokens={digest("secret"): "ann"}, origins=frozenset(origin.values()))
    sent = {"authorization", "content-type", "idempotency-key", "if-none-match", "last-event-id", "range"}
    with served(quick_studio, rules) as web, httpx.Client(base_url=web.url, headers=origin) as page:
        for method in ("GET", "POST", "DELETE"):
            asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": ", ".join(sorted(sent))}
            answer = page.options("/v1/sessions", headers=asked)
            assert answer.status_code == 200, answer.text
            assert sent <= listed(answer, "access-control-allow-headers")
        assert page.options("/v1/sessions", headers=asked | {"Origin": "https://evil.example"}).status_code == 400
        page.headers["Authorization"] = "Bearer secret"
        with Client(web.url, "secret") as client:
            video = f"/v1/sessions/{finished(client, page)}/video.mp4"
        for answer in (
            page.get(video, headers={"Range": "bytes=0-9"}),
            page.put(video),
            page.get("/v1/sessions", headers={"Authorization": "Bearer wrong"}),
        ):
            readable = listed(answer, "access-control-expose-headers") | SAFELISTED
            assert {name.lower() for name in answer.headers} - readable <= NOT_OURS, answer


def listed(answer: httpx.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[header].split(",")}


#: What a page may always read, and what servers and browsers tell each other.
SAFELISTED = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}
NOT_OURS = {
    "access-control-allow-origin",
    "access-control-expose-headers",
    "connection",
    "date",
    "server",
    "vary",
    "www-authenticate",
}


def test_a_stream_goes_on_after_the_service_was_replaced(tmp_path: Path) -> None:
    """The client hears that the first one ends, finds the second at the same address, and misses nothing."""
    store = open_store(str(tmp_path))
    with served(lambda: quick_studio(store)) as web:
        port = int(web.url.rpartition(":")[2])
        client = Client(web.url)
        name = client.create("x", image=picture(), actions="w")["id"]
        pieces = client.watch(name)
        got = b""
        for piece in iter(lambda: next(pieces), None):
            got += piece.data
            if piece.chunk == 0:
                break
    with served(lambda: quick_studio(store), port=port):
        client.control(name, "d", 1)
        client.finish(name)
        for piece in pieces:
            got += piece.data
        assert got == client.video(name)
        client.close()


def test_a_plain_stream_that_this_process_does_not_bring_to_its_end_is_cut(http: httpx.Client) -> None:
    """Else what came of the mp4 would pass for all of it."""
    with ExitStack() as stack:
        with served(quick_studio) as web:
            with httpx.Client(base_url=web.url) as other:
                name = begun(other, actions="w")["id"]
            answer = stack.enter_context(http.stream("GET", f"{web.url}/v1/sessions/{name}/stream.mp4"))
            pieces = answer.iter_raw()
            got = next(pieces)
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            got += b"".join(pieces)
    assert got


def test_a_socket_that_has_only_segments_to_bring_ends_as_any_other(
    web: Web, http: httpx.Client, client: Client
) -> None:
    name = finished(client, http)
    *_, last = (piece.event["seq"] for piece in client.watch(name) if piece.event)
    address = f"ws{web.url.removeprefix('http')}/v1/sessions/{name}/stream?from=1&after={last}"
    with connect(address) as socket:
        size, code = read_to_the_end(socket)
    assert size
    assert code == 1000, "nothing is to come"


def test_before_the_lanes_are_warm_everybody_is_told_to_come_again() -> None:
    with served(quick_studio, warm=False) as web, httpx.Client(base_url=web.url) as http:
        assert http.get("/healthz").status_code == 200
        for answer in (http.get("/readyz"), http.get("/v1/sessions"), http.post("/v1/sessions", json={})):
            assert (answer.status_code, answer.json()["error"]["type"]) == (503, "not_ready")
            assert "retry-after" in answer.headers
        with connect(f"ws{web.url.removeprefix('http')}/v1/sessions/x/stream") as socket:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(30)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013, "a client comes back by itself"


def test_who_does_not_read_costs_nothing(web: Web, http: httpx.Client, client: Client) -> None:
    """A socket that takes nothing in is held back; the others are not, and nothing piles up for it."""
    name = begun(http, actions="w*12")["id"]
    with connect(f"ws{web.url.removeprefix('http')}/v1/sessions/{name}/stream", max_queue=1) as lazy:
        client.finish(name)
        *_, last = client.watch(name)
        assert last.event["type"] == "committed"
        live = web.studio.registry.find(name)
        assert live is not None
        assert len(live.feed.after(int(live.created * 1000)) or []) <= 256
        got = [message for message in lazy if isinstance(message, bytes)]
    assert b"".join(got) == client.video(name)


def test_a_socket_brings_so_much_and_the_client_comes_again() -> None:
    with served(quick_studio, replace(Rules(), max_socket_bytes=4000)) as web, Client(web.url) as client:
        name = client.create("x", image=picture(), actions="w*12")["id"]
        client.finish(name)
        whole = b"".join(piece.data for piece in client.watch(name))
        assert whole == client.video(name)
        assert len(whole) > 2 * 4000, "more than one socket brings"
        with connect(f"ws{web.url.removeprefix('http')}/v1/sessions/{name}/stream") as socket:
            size, code = read_to_the_end(socket)
        assert code == 1012, "come again"
        assert 4000 <= size < len(whole)


def read_to_the_end(socket: ClientConnection) -> tuple[int, int | None]:
    """Bytes of media that came, and the code that the service closed with."""
    size = 0
    try:
        while True:
            message = socket.recv(30)
            size += len(message) if isinstance(message, bytes) else 0
    except ConnectionClosed as closed:
        return size, closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize("seconds", [0.3])
def test_an_idle_session_says_so_on_its_stream(seconds: float) -> None:
    limits = ServiceLimits(idle_seconds=seconds, notice_seconds=seconds / 2)
    with served(lambda: quick_studio(service=limits)) as web, Client(web.url) as client:
        name = client.create("x", image=picture(), actions="w")["id"]
        kinds = []
        for piece in client.watch(name):
            kinds.append(piece.event.get("type"))
            if kinds[-1] == "resting" and kinds.count("resting") == 1:
                client.control(name, "d", 1)
            if piece.chunk == 1:
                client.finish(name)
        assert kinds.index("expiring") < kinds.index("resting")
        assert "restored" in kinds
        assert kinds[-1] == "committed"

"""The API over a real web server, on emulated lanes: every route, every stream, what is refused and how."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from gamecraft_core.base.messages import DenoiseOrder, Order
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import layout
from gamecraft_core.media.fragment import probe
from jobs.play import main as play
from orchestrator.http.client import Client, ServiceError
from orchestrator.http.gate import Rules, digest
from orchestrator.limits import Limits
from orchestrator.live.limits import ServiceLimits
from tests.fakes.studio import Studio, picture
from tests.fakes.web import Web, served
from tests.fakes.world import usual

#: As fast as lets a test see an order.
HASTE = 0.01


def quick(order: Order) -> float:
    return usual(order) * HASTE


def studio(store: Store | None = None, **changes: Any) -> Studio:
    return Studio(store or open_store(f"memory://{uuid4().hex}"), aside=asyncio.to_thread, behaviour=quick, **changes)


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with served(studio) as running:
        yield running


@pytest.fixture
def http(web: Web) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url) as client:
        yield client


@pytest.fixture
def client(web: Web) -> Iterator[Client]:
    with Client(web.url) as made:
        yield made


def begun(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/sessions", data={"prompt": "A harbour."} | fields, files={"image": picture()})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/sessions/{answer.json()['id']}"
    return dict(answer.json())


def finished(client: Client, http: httpx.Client, actions: str = "w d") -> str:
    name = str(begun(http, actions=actions)["id"])
    client.finish(name)
    *_, last = client.watch(name)
    assert last.event["type"] == "committed"
    return name


def test_a_session_over_the_websocket(client: Client, http: httpx.Client) -> None:
    name = client.create("A harbour.", image=picture(), actions="w")["id"]
    pieces, kinds = b"", []
    for piece in client.watch(name):
        pieces += piece.data
        kinds.append(piece.event.get("type", "bytes"))
        if piece.chunk == 0:
            assert (
                client.control(name, [{"keys": [{"action": "w"}, {"action": "d"}], "mouse": [1.0, 0]}], 1)["first"] == 1
            )
        if piece.chunk == 1:
            client.finish(name)
    assert kinds[0] == "state"
    assert kinds[-1] == "committed"
    assert kinds.count("bytes") == 3
    assert pieces == client.video(name)
    facts = probe(pieces)
    assert (facts.frames, facts.fps, facts.monotonic) == (66, Fraction(25), True)
    record = client.records(name)
    assert [len(record[column]) for column in ("camera_to_world", "keys", "chunks")] == [66, 66, 2]
    assert client.describe(name)["chunks"] == {"asked": 2, "shown": 2, "durable": 2}


def test_controls_go_over_the_websocket_too(web: Web, http: httpx.Client) -> None:
    name = begun(http)["id"]
    with connect(f"ws{web.url.removeprefix('http')}/v1/sessions/{name}/stream") as socket:

        def until(kind: str) -> dict[str, Any]:
            while True:
                message = socket.recv(30)
                if isinstance(message, str) and (told := json.loads(message))["type"] == kind:
                    return dict(told)

        socket.send(json.dumps({"actions": "fly", "ref": 1}))
        refused = until("error")
        assert (refused["ref"], refused["error"]["field"]) == (1, "actions[0].action")
        socket.send("not json")
        assert until("error")["error"]["field"] == "message"
        socket.send(json.dumps({"actions": "w", "at": 0, "ref": "mine"}))
        assert until("accepted")["ref"] == "mine"
        assert until("segment")["chunk"] == 0
        socket.send(json.dumps({"finish": True}))
        assert until("committed")


def test_the_plain_stream_is_the_video(http: httpx.Client, client: Client) -> None:
    name = begun(http, actions="w d")["id"]
    got: dict[str, bytes] = {}

    def read() -> None:
        with httpx.Client(base_url=http.base_url, timeout=30) as other:
            got["whole"] = other.get(f"/v1/sessions/{name}/stream.mp4").content

    reader = threading.Thread(target=read)
    reader.start()
    client.finish(name)
    reader.join(30)
    video = client.video(name)
    assert got["whole"] == video
    assert http.get(f"/v1/sessions/{name}/stream.mp4").content == video, "after the end, too"
    second = http.get(f"/v1/sessions/{name}/stream.mp4", params={"from": 1}).content
    assert probe(second).frames == 33


def test_events_as_server_sent_events_from_any_place(http: httpx.Client, client: Client) -> None:
    name = begun(http, actions="w d")["id"]

    def read(**request: Any) -> list[dict[str, Any]]:
        with http.stream("GET", f"/v1/sessions/{name}/events", timeout=30, **request) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]

    client.finish(name)
    events = read()
    kinds = [event["type"] for event in events]
    assert kinds[0] == "state"
    assert kinds[-1] == "committed"
    middle = events[len(events) // 2]["seq"]
    assert read(params={"after": middle}) == [event for event in events if event["seq"] > middle]
    assert read(headers={"Last-Event-ID": str(middle)}) == read(params={"after": middle})


def test_a_video_can_be_read_in_ranges(http: httpx.Client, client: Client) -> None:
    name = finished(client, http)
    path, video = f"/v1/sessions/{name}/video.mp4", client.video(name)
    for asked, wanted in {
        "bytes=0-9": video[:10],
        "bytes=100-": video[100:],
        "bytes=-7": video[-7:],
        f"bytes=5-{10**12}": video[5:],
    }.items():
        answer = http.get(path, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, wanted)
    assert http.get(path, headers={"Range": "bytes=0-1,5-6"}).content == video
    beyond = http.get(path, headers={"Range": f"bytes={len(video)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(video)}")
    tag = http.get(path).headers["etag"]
    assert http.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_listing_cancelling_and_deleting(http: httpx.Client) -> None:
    names = [begun(http)["id"] for _ in range(3)]
    assert http.post(f"/v1/sessions/{names[0]}/cancel").json()["status"] == "cancelled"
    assert http.delete(f"/v1/sessions/{names[1]}").status_code == 204
    assert http.get(f"/v1/sessions/{names[1]}").status_code == 404
    found, after = [], ""
    while True:
        page = http.get("/v1/sessions", params={"after": after, "limit": 2}).json()
        found += [entry["id"] for entry in page["sessions"]]
        if page["after"] is None:
            break
        after = page["after"]
    assert [name for name in found if name in names] == [names[0], names[2]]
    assert found == sorted(set(found))


def test_an_image_inline(http: httpx.Client) -> None:
    inline = "data:image/png;base64," + base64.b64encode(picture()).decode()
    answer = http.post("/v1/sessions", json={"prompt": "x", "image": inline, "seed": 2**62})
    assert answer.status_code == 201
    assert answer.json()["seed"] == 2**62


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


def test_health_metrics_description_and_page(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready"}
    assert http.get("/metrics").headers["content-type"].startswith("text/plain")
    described = http.get("/openapi.json").json()
    assert {"/v1/sessions", "/v1/sessions/{session_id}/controls", "/v1/videos/{video_id}/content"} <= set(
        described["paths"]
    )
    page = http.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for file in ("page.css", "main.js", "api.js", "player.js", "strip.js"):
        assert http.get(f"/page/{file}").status_code == 200
    assert http.get("/nowhere").json()["error"]["type"] == "not_found"


def test_videos_in_the_fields_shape(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/videos",
        data={"prompt": "A harbour.", "seconds": "2.6", "size": "64x32", "model": "tiny-gamecraft"},
        files={"input_reference": picture()},
    )
    video = answer.json()
    assert (answer.status_code, video["object"], video["seconds"], video["size"]) == (200, "video", "2.64", "64x32")
    name = video["id"]
    with http.stream("GET", f"/v1/sessions/{name}/events", timeout=30) as events:
        events.read()
    video = http.get(f"/v1/videos/{name}").json()
    assert (video["status"], video["progress"], video["error"]) == ("completed", 100, None)
    facts = probe(http.get(f"/v1/videos/{name}/content").content)
    assert (facts.frames, facts.width, facts.height) == (66, 64, 32)
    assert name in [each["id"] for each in http.get("/v1/videos", params={"limit": 100}).json()["data"]]
    assert http.delete(f"/v1/videos/{name}").json() == {"id": name, "object": "video.deleted", "deleted": True}
    assert http.get(f"/v1/videos/{name}").status_code == 404
    for wrong, field in (({"size": "big"}, "size"), ({"seconds": "no"}, "seconds"), ({"model": "sora"}, "preset")):
        refused = http.post("/v1/videos", data={"prompt": "x", **wrong}, files={"input_reference": picture()})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, field)
    assert http.post("/v1/videos", json={"prompt": "x"}).json()["error"]["field"] == "input_reference"


def test_overload_is_answered_with_the_place_and_when_to_come_again() -> None:
    def slow(order: Order) -> float:
        return 1e6 if isinstance(order, DenoiseOrder) else quick(order)

    def make() -> Studio:
        made = studio(limits=Limits(max_sessions=1, max_queued=1, grace_seconds=0.0))
        for lane in made.lanes:
            lane.behaviour = slow
        return made

    with served(make) as web, httpx.Client(base_url=web.url) as http:
        begun(http, actions="w")
        asked: dict[str, Any] = {"data": {"prompt": "x"}, "files": {"image": picture()}}
        queued = http.post("/v1/sessions", **asked)
        assert (queued.status_code, queued.json()["position"]) == (202, 1)
        refused = http.post("/v1/sessions", **asked)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json()["error"]["position"] == 2
        unread = http.post("/v1/sessions", content=b"{")
        assert unread.status_code == 429, "nothing else is done for who cannot come in"
        stored = list(web.studio.store.list(layout.SESSIONS))
        assert len(stored) == 2, "who is refused leaves nothing"


def test_tokens_are_tenants() -> None:
    rules = Rules(tokens={digest("secret-a"): "ann", digest("secret-b"): "bob"})
    with served(studio, rules) as web, httpx.Client(base_url=web.url) as http:
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
    with served(studio, rules) as other, httpx.Client(base_url=other.url) as named:
        assert named.get("/healthz", headers={"Host": "rebound.example"}).status_code == 403
        answer = named.get("/v1/sessions", headers={"Origin": "https://page.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://page.example")
        assert "access-control-allow-origin" not in http.get("/v1/sessions").headers


def test_too_much_is_cut_off_while_it_comes() -> None:
    with served(studio, replace(Rules(), max_body_bytes=10_000)) as web, httpx.Client(base_url=web.url) as http:
        known = http.post("/v1/sessions", content=b"x" * 20_000)
        pieces = (b"x" * 1000 for _ in range(20))
        unknown = http.post("/v1/sessions", content=pieces)
        for answer in (known, unknown):
            assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_large")


def test_a_stream_goes_on_after_the_service_was_replaced(tmp_path: Path) -> None:
    """The client hears that the first one ends, finds the second at the same address, and misses nothing."""
    store = open_store(str(tmp_path))
    with served(lambda: studio(store)) as web:
        port = int(web.url.rpartition(":")[2])
        client = Client(web.url)
        name = client.create("x", image=picture(), actions="w")["id"]
        pieces = client.watch(name)
        got = b""
        for piece in iter(lambda: next(pieces), None):
            got += piece.data
            if piece.chunk == 0:
                break
    with served(lambda: studio(store), port=port):
        client.control(name, "d", 1)
        client.finish(name)
        for piece in pieces:
            got += piece.data
        assert got == client.video(name)
        client.close()


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


def test_jobs_play_walks_and_keeps_the_video(web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = tmp_path / "start.png", tmp_path / "walk.mp4"
    image.write_bytes(picture())
    arguments = ["--url", web.url, "--image", str(image), "--actions", "w*2 left_rot:1.5", "--out", str(out)]
    assert play(arguments) == 0
    assert probe(out.read_bytes()).frames == 99
    assert "chunk 3: there" in capsys.readouterr().out
    assert play([*arguments, "--preset", "nowhere"]) == 1
    assert "unknown preset" in capsys.readouterr().err
    assert play([*arguments[:2], "--image", "nowhere.png", *arguments[4:]]) == 2


@pytest.mark.parametrize("seconds", [0.3])
def test_an_idle_session_says_so_on_its_stream(seconds: float) -> None:
    limits = ServiceLimits(idle_seconds=seconds, notice_seconds=seconds / 2)
    with served(lambda: studio(service=limits)) as web, Client(web.url) as client:
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

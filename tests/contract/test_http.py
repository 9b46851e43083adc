"""The API over a real web server, on emulated lanes: every route and every stream."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from gamecraft_core.media.fragment import probe
from jobs.config import resolve
from jobs.play import main as play
from orchestrator.http.client import Client
from tests.fakes.studio import SMALL, picture
from tests.fakes.web import Web, begun, finished, quick_studio, served, stuck_studio

PICTURE = picture()


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
    over = http.get(f"/v1/sessions/{name}/events", headers={"Last-Event-ID": str(events[-1]["seq"])})
    assert (over.status_code, over.content) == (204, b""), "a browser would come again for ever"


def test_both_streams_tell_the_same(web: Web, http: httpx.Client, client: Client) -> None:
    name = begun(http)["id"]
    with listening_twice(web.url, name) as (socket, sent):
        assert next(socket)["type"] == next(sent)["type"] == "state"
        client.control(name, "w d")
        client.finish(name)
        told = [[event for event in stream if event["type"] in LASTING] for stream in (sent, socket)]
    assert told[0] == told[1]
    assert {event["type"] for event in told[0]} == LASTING


def test_both_streams_tell_who_waits_that_it_moved_up() -> None:
    with served(lambda: stuck_studio(max_sessions=1, max_queued=2)) as web, Client(web.url) as client:
        first, second, third = (client.create("x", image=picture(), actions="w") for _ in range(3))
        assert [each["position"] for each in (first, second, third)] == [None, 1, 2]
        with listening_twice(web.url, third["id"]) as streams:
            assert [next(stream)["session"]["position"] for stream in streams] == [2, 2]
            client.cancel(second["id"])
            assert [(event["type"], event["position"]) for event in map(next, streams)] == [("queued", 1)] * 2


#: Events that no later one takes the place of.
LASTING = {"denoised", "decoded", "stored", "committed"}


@contextmanager
def listening_twice(url: str, name: str) -> Iterator[tuple[Iterator[dict[str, Any]], Iterator[dict[str, Any]]]]:
    """The session's events as they come over the WebSocket, and as server-sent events."""
    session = f"{url}/v1/sessions/{name}"
    with (
        connect(f"ws{session.removeprefix('http')}/stream") as socket,
        httpx.stream("GET", f"{session}/events") as sent,
    ):
        texts = (json.loads(message) for message in socket if isinstance(message, str))
        lines = (json.loads(line[6:]) for line in sent.iter_lines() if line.startswith("data: "))
        yield (told for told in texts if "seq" in told), lines


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


@pytest.mark.parametrize(("path", "file"), [("/v1/sessions", "image"), ("/v1/videos", "input_reference")])
def test_a_request_can_be_repeated_with_its_key(http: httpx.Client, path: str, file: str) -> None:
    def asked(key: str, prompt: str = "A harbour.", image: bytes = PICTURE) -> httpx.Response:
        headers = {"Idempotency-Key": key}
        return http.post(path, data={"prompt": prompt}, files={file: image}, headers=headers)

    first, repeated = asked("one"), asked("one")
    others = [asked("another"), asked("one", "A corridor."), asked("one", image=picture(64))]
    assert first.json()["id"] == repeated.json()["id"]
    assert len({answer.json()["id"] for answer in (first, *others)}) == 4, "its key is of this request alone"
    assert asked("one", image=b"torn").status_code == 422
    assert repeated.status_code == first.status_code
    assert asked("x" * 256).status_code == 422


def test_health_metrics_description_and_page(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready"}
    assert http.get("/metrics").headers["content-type"].startswith("text/plain")
    described = http.get("/openapi.json").json()
    assert {"/v1/sessions", "/v1/sessions/{session_id}/controls", "/v1/videos/{video_id}/content"} <= set(
        described["paths"]
    )
    assert http.get("/nowhere").json()["error"]["type"] == "not_found"


class Tags(HTMLParser):
    """Gathers what a page loads, and every piece of script or style in it that its policy forbids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._within = tag
        given = dict(attributes)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.loads += [given[name] or "" for name in ("src", "href") if name in given and tag != "a"]

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize(("path", "script"), [("/", "main.js"), ("/docs", "docs.js")])
def test_a_page_loads_its_own_files_and_nothing_else(http: httpx.Client, path: str, script: str) -> None:
    page = http.get(path)
    assert page.status_code == 200, page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    tags = Tags(page.text)
    assert tags.inline == []
    assert f"/page/{script}" in tags.loads
    loads = [address for address in tags.loads if not address.startswith("data:")]
    while loads:
        file = http.get(loads.pop())
        assert file.status_code == 200, file.url
        assert not re.search(r"https?://(?!www\.w3\.org/)|innerHTML|\beval\(|@import", file.text), file.url
        loads += [f"/page/{name}" for name in re.findall(r'from "\./(\w+\.js)"', file.text)]


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


def test_a_videos_seconds_are_the_presets() -> None:
    fast = resolve("tiny-gamecraft", sets=(*SMALL, "video.fps=50")).preset
    with served(lambda: quick_studio(served=(fast,))) as web:
        for model in ({}, {"model": "tiny-gamecraft"}):
            fields = {"prompt": "x", "seconds": "2.64", **model}
            answer = httpx.post(f"{web.url}/v1/videos", data=fields, files={"input_reference": picture()})
            assert answer.json()["seconds"] == "2.64", "four chunks of 0.66 s"


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

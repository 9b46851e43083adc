"""The API with presets of every family: what is served, how long a video is, and streams whose end is made first."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from gamecraft_core.base.messages import DenoiseOrder, Order
from gamecraft_core.base.store import open_store
from gamecraft_core.media.fragment import probe
from orchestrator.http.client import Client
from orchestrator.limits import Limits
from tests.fakes.recordings import level_of
from tests.fakes.studio import Studio, picture, preset
from tests.fakes.web import Web, quick, quick_studio, served

NAMES = ("tiny-hunyuan-video", "tiny-gamecraft", "tiny-hunyuan-video-i2v", "tiny-framepack", "tiny-framepack-f1")
SEED = preset("tiny-framepack").sampling.seed


def studio(**changes: Any) -> Studio:
    return quick_studio(served=[preset(name) for name in NAMES], **changes)


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with served(studio) as running:
        yield running


def committed(client: Client, name: str) -> bytes:
    """Wait for the end; the video."""
    *_, last = client.watch(name)
    assert last.event["type"] == "committed"
    return client.video(name)


def test_what_is_served_is_told_the_default_first(http: httpx.Client) -> None:
    listed = http.get("/v1/presets").json()["presets"]
    assert [each["name"] for each in listed] == list(NAMES)
    told = {each["name"]: (each["starts"], each["length"], each["layout"]) for each in listed}
    assert told == {
        "tiny-gamecraft": (["image", "video"], {"field": "actions", "default": None}, "tiled"),
        "tiny-hunyuan-video": (["none"], {"field": "frames", "default": 33}, "tiled"),
        "tiny-hunyuan-video-i2v": (["image"], {"field": "frames", "default": 33}, "tiled"),
        "tiny-framepack": (["image"], {"field": "seconds", "default": 3.6}, "inverted"),
        "tiny-framepack-f1": (["image"], {"field": "seconds", "default": 3.6}, "forward"),
    }
    for each in listed:
        assert (each["height"], each["width"]) == (32, 48)
        assert each["description"]
        assert each["fps"] == preset(each["name"]).video.fps


@pytest.mark.parametrize(
    ("model", "seconds", "frames"),
    [
        ("tiny-gamecraft", "2.6", 66),
        ("tiny-gamecraft", None, 99),
        ("tiny-hunyuan-video", "2.6", 61),
        ("tiny-hunyuan-video", "0.01", 1),
        ("tiny-hunyuan-video", None, 33),
        (None, None, 33),
        ("tiny-hunyuan-video-i2v", 0.5, 13),
        ("tiny-framepack", "2.6", 73),
        ("tiny-framepack", None, 109),
        ("tiny-framepack-f1", 0.5, 37),
    ],
)
def test_a_video_is_about_as_long_as_asked(
    http: httpx.Client, client: Client, model: str | None, seconds: str | float | None, frames: int
) -> None:
    given = {"model": model, "seconds": seconds}
    fields = {"prompt": "A harbour.", **{key: value for key, value in given.items() if value is not None}}
    files = {} if model in (None, "tiny-hunyuan-video") else {"input_reference": picture()}
    made = http.post("/v1/videos", data=fields, files=files)
    assert made.status_code == 200, made.text
    video = made.json()
    fps = preset(model or NAMES[0]).video.fps
    assert (video["model"], video["seconds"]) == (model or NAMES[0], f"{frames / fps:g}")
    facts = probe(committed(client, video["id"]))
    assert (facts.frames, facts.fps, facts.monotonic) == (frames, fps, True)


@pytest.mark.parametrize(
    ("fields", "image", "status", "field", "said"),
    [
        ({"model": "tiny-hunyuan-video", "seconds": 60}, False, 422, "seconds", "1 to 129"),
        ({"model": "tiny-hunyuan-video-i2v", "seconds": 0.01}, True, 422, "seconds", "5 to 129"),
        ({"model": "tiny-framepack", "seconds": 3000}, True, 409, "seconds", "1000 at most"),
        ({"model": "tiny-gamecraft", "seconds": 3000}, True, 409, "seconds", "1000 at most"),
        ({"model": "tiny-hunyuan-video", "frames": 500}, False, 422, "frames", "1 to 129"),
        ({"model": "tiny-hunyuan-video", "actions": "w"}, False, 422, "actions", "leave it out"),
        ({"model": "tiny-framepack", "actions": "w"}, True, 422, "actions", "seconds"),
        ({"model": "tiny-framepack"}, False, 422, "input_reference", "upload"),
        ({"model": "tiny-hunyuan-video"}, True, 422, "input_reference", "leave it out"),
    ],
)
def test_what_a_family_does_not_take_is_refused(
    http: httpx.Client, fields: dict[str, Any], image: bool, status: int, field: str, said: str
) -> None:
    files = {"input_reference": picture()} if image else {}
    answer = http.post("/v1/videos", data={"prompt": "A harbour.", **fields}, files=files)
    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (status, field), error
    assert said in error["remedy"]


class Gate:
    """Lets the denoise of a section begin when it is told to."""

    def __init__(self) -> None:
        self.open = False

    def __call__(self, order: Order) -> float:
        return 3600.0 if isinstance(order, DenoiseOrder) and order.index == 2 and not self.open else quick(order)


def begun(client: Client, preset: str = "tiny-framepack") -> str:
    return str(client.create("A harbour.", image=picture(), preset=preset)["id"])


def messages(url: str, name: str, **asked: Any) -> list[tuple[dict[str, Any], bytes]]:
    """All that the WebSocket sends until it closes: texts, each with the bytes that follow it."""
    query = "&".join(f"{key}={value}" for key, value in asked.items())
    heard: list[tuple[dict[str, Any], bytes]] = []
    with connect(f"ws{url.removeprefix('http')}/v1/sessions/{name}/stream?{query}", max_size=None) as socket:
        for message in socket:
            if isinstance(message, str):
                heard.append((json.loads(message), b""))
            else:
                heard[-1] = (heard[-1][0], message)
    return heard


def media(heard: list[tuple[dict[str, Any], bytes]]) -> list[tuple[dict[str, Any], bytes]]:
    return [(told, data) for told, data in heard if told["type"] in ("init", "segment", "frames")]


def check_mp4(url: str, name: str, video: bytes) -> None:
    """The session's stream.mp4 and its WebSocket say what ``video`` does, from the beginning and from a later piece."""
    stream = f"{url}/v1/sessions/{name}/stream.mp4"
    pieces = media(messages(url, name))
    assert [told.get("chunk") for told, _ in pieces] == [None, 0, 1]
    assert b"".join(data for _, data in pieces) == video == httpx.get(stream).content
    for first in (1, 2):
        rest = media(messages(url, name, **{"from": first}))
        assert [told.get("chunk") for told, _ in rest] == [None, 1][: 3 - first]
        assert b"".join(data for _, data in rest) == httpx.get(stream, params={"from": first}).content
        assert b"".join(data for _, data in rest) == pieces[0][1] + (pieces[2][1] if first == 1 else b"")


def check_jpeg(url: str, name: str) -> None:
    from PIL import Image

    pieces = media(messages(url, name, media="jpeg"))
    assert [(told["chunk"], told["start"], len(told["sizes"])) for told, _ in pieces] == [(0, 0, 73), (1, 73, 36)]
    at = 0
    for number, size in enumerate(pieces[1][0]["sizes"], start=73):
        with Image.open(io.BytesIO(pieces[1][1][at : at + size])) as shown:
            assert shown.convert("L").getpixel((9, 9)) == pytest.approx(level_of(number, SEED), abs=4)
        at += size


def test_streams_of_a_session_whose_end_is_made_first(web: Web, client: Client) -> None:
    name = begun(client)
    heard = messages(web.url, name)
    video = client.video(name) if heard[-1][0]["type"] == "committed" else b""
    kinds = [told["type"] for told, _ in heard]
    assert kinds.index("init") > max(at for at, kind in enumerate(kinds) if kind == "denoised")
    assert b"".join(data for _, data in media(heard)) == video
    assert probe(video).frames == 109
    check_mp4(web.url, name, video)
    check_jpeg(web.url, name)
    assert b"".join(piece.data for piece in client.watch(name)) == video
    assert [piece.chunk for piece in client.watch(name, 1) if piece.chunk is not None] == [1]


def test_a_restart_in_the_middle_of_such_a_session_is_not_seen(tmp_path: Path) -> None:
    store, gate = open_store(str(tmp_path)), Gate()
    got: dict[str, Any] = {}
    hasty = Limits(grace_seconds=0.0)
    with served(lambda: studio(store=store, behaviour=gate, limits=hasty)) as web, Client(web.url) as client:
        port, name = int(web.url.rpartition(":")[2]), begun(client)

        def watch() -> None:
            with Client(web.url) as other:
                got["watched"] = list(other.watch(name))

        watcher = threading.Thread(target=watch)
        watcher.start()
        for piece in client.watch(name):
            assert piece.data == b""
            if piece.event.get("type") == "stored" and piece.event["chunk"] == 1:
                break
        described = client.describe(name)
        assert described["chunks"] == {"asked": 3, "shown": 0, "durable": 2}
        assert httpx.get(f"{web.url}/v1/videos/{name}").json()["progress"] == 66
    gate.open = True
    with served(lambda: studio(store=store, behaviour=gate), port=port) as web, Client(web.url) as client:
        refused = httpx.post(f"{web.url}/v1/sessions/{name}/controls", json={"actions": "w"})
        assert refused.status_code == 409
        assert refused.json()["error"]["field"] == "actions"
        watcher.join(60)
        assert not watcher.is_alive()
        video = client.video(name)
        assert b"".join(piece.data for piece in got["watched"]) == video
        assert [order for _, order in web.studio.denoised()] == [2]
        check_mp4(web.url, name, video)
        check_jpeg(web.url, name)


def test_a_client_needs_no_picture_where_the_preset_needs_none(client: Client) -> None:
    name = client.create("A harbour.", frames=17)["id"]
    assert probe(committed(client, name)).frames == 17

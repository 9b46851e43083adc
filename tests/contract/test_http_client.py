"""The Python client and the command line over a real web server: what they begin from, and how long they try."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import EncodeOrder
from gamecraft_core.base.spec import Start
from gamecraft_core.base.store import open_store
from gamecraft_core.dataset import layout
from gamecraft_core.media.fragment import probe
from jobs.play import main as play
from orchestrator.http.client import Client, ServiceError
from orchestrator.live.limits import ServiceLimits
from tests.fakes.studio import Studio, picture
from tests.fakes.web import Web, quick_studio, served
from tests.ray.runs import INPUTS


def test_what_can_be_repeated_is_until_the_service_is_back(tmp_path: Path) -> None:
    """Nobody answers, then a service that is not ready does, and at last one that is."""
    store = open_store(str(tmp_path))

    def studio() -> Studio:
        return quick_studio(store, service=ServiceLimits(retry_seconds=0.2))

    with served(studio) as web, Client(web.url) as client:
        port = int(web.url.rpartition(":")[2])
        name = client.create("x", image=picture(), actions="w")["id"]
    with ThreadPoolExecutor(1) as aside, Client(web.url) as client, Client(web.url, patience=0.0) as hasty:

        def asked_in_vain(ask: Callable[[], Any]) -> Future[Any]:
            with socket.create_server(("127.0.0.1", port)) as door:
                answer = aside.submit(ask)
                door.accept()[0].close()
            return answer

        answer = asked_in_vain(lambda: client.control(name, "d", 1))
        with served(studio, port=port, warm=False):
            with pytest.raises(ServiceError) as refused:
                hasty.control(name, "d", 1)
            assert (refused.value.status, refused.value.retry_after) == (503, 0.2)
            assert not answer.done()
        with served(studio, port=port):
            assert answer.result(60)["first"] == 1
        answer = asked_in_vain(lambda: client.finish(name))
        with served(studio, port=port):
            assert not answer.result(60)["open"]
            assert sum(piece.chunk is not None for piece in hasty.watch(name)) == 2
        answer = asked_in_vain(lambda: client.video(name))
        with served(studio, port=port):
            assert answer.result(60) == hasty.video(name)
    with pytest.raises(ServiceError, match="does not answer"), Client(web.url) as client:
        client.control(name, "d")  # it may have arrived: a second one would be another chunk


CLIP = INPUTS / "balloons.mp4"


def test_a_walk_goes_on_from_a_video(web: Web, client: Client) -> None:
    name = client.create("Balloons.", video=CLIP, actions="w")["id"]
    client.finish(name)
    assert [piece.chunk for piece in client.watch(name) if piece.chunk is not None] == [0]
    (start,) = [
        order.start
        for lane in web.studio.lanes
        for order, _, _ in lane.log
        if isinstance(order, EncodeOrder) and order.session_id == name
    ]
    clip = CLIP.read_bytes()
    key = layout.input_key(hashlib.sha256(clip).hexdigest(), ".video")
    assert start == Start("video", web.studio.store.uri(key))
    assert web.studio.store.get(key) == clip


@pytest.mark.parametrize("starts", [{}, {"image": picture(), "video": b"clip"}])
def test_a_session_begins_from_one_start(client: Client, starts: dict[str, bytes]) -> None:
    with pytest.raises((BadInput, ServiceError), match="a session (begins|starts) from") as refused:
        client.create("x", **starts)
    assert refused.value.field == "image"
    assert "video" in str(refused.value)


def test_jobs_play_goes_on_from_a_video(web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "walk.mp4"
    arguments = ["--url", web.url, "--actions", "w", "--out", str(out)]
    assert play([*arguments, "--video", str(CLIP)]) == 0
    assert probe(out.read_bytes()).frames == 33
    assert play([*arguments, "--video", "nowhere.mp4"]) == 2
    for wrong in ([], ["--image", str(CLIP), "--video", str(CLIP)]):
        with pytest.raises(SystemExit, match="2"):
            play([*arguments, *wrong])
    assert "one of the arguments --image --video is required" in capsys.readouterr().err


def test_the_description_takes_either_start_as_a_file(http: httpx.Client) -> None:
    taken = http.get("/openapi.json").json()["paths"]["/v1/sessions"]["post"]["requestBody"]["content"]
    form = taken["multipart/form-data"]["schema"]["properties"]
    assert {name for name, each in form.items() if each.get("format") == "binary"} == {"image", "video"}

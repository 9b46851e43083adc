"""Chunks as pictures over the WebSocket, for browsers that play no segments."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from orchestrator.http.client import Client
from tests.fakes.recordings import level_of
from tests.fakes.web import Web, finished


def chunk_of(socket: ClientConnection) -> tuple[dict[str, Any], bytes]:
    """The next announcement of pictures, and what comes after it."""
    while True:
        message = socket.recv(30)
        assert isinstance(message, str), "nothing comes unannounced"
        told = json.loads(message)
        assert told["type"] not in ("init", "segment"), "a listener gets one kind of media"
        if told["type"] == "frames":
            data = socket.recv(30)
            assert isinstance(data, bytes)
            return dict(told), data


def test_a_chunk_is_its_frames_in_order(web: Web, http: httpx.Client, client: Client) -> None:
    from PIL import Image

    name = finished(client, http)
    with connect(f"ws{web.url.removeprefix('http')}/v1/sessions/{name}/stream?media=jpeg&from=1") as socket:
        told, data = chunk_of(socket)
    assert (told["chunk"], told["start"], len(told["sizes"]), sum(told["sizes"])) == (1, 33, 33, len(data))
    start = 0
    for number, size in enumerate(told["sizes"], start=33):
        with Image.open(io.BytesIO(data[start : start + size])) as picture:
            assert (picture.format, picture.size) == ("JPEG", (48, 32))
            assert picture.convert("L").getpixel((20, 20)) == pytest.approx(level_of(number), abs=4)
        start += size


def test_other_media_are_refused(web: Web, http: httpx.Client, client: Client) -> None:
    name = finished(client, http)
    with (
        pytest.raises(InvalidStatus),
        connect(f"ws{web.url.removeprefix('http')}/v1/sessions/{name}/stream?media=gif") as socket,
    ):
        socket.recv(30)

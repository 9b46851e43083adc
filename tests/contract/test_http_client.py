"""The Python client and the command line over a real web server: what they begin from, and how long they try."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gamecraft_core.base.store import open_store
from orchestrator.http.client import Client, ServiceError
from orchestrator.live.limits import ServiceLimits
from tests.fakes.studio import Studio, picture
from tests.fakes.web import quick_studio, served


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

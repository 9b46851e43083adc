"""A studio behind a real web server, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import uvicorn

from gamecraft_core.base.messages import DenoiseOrder, Order
from gamecraft_core.base.store import Store, open_store
from jobs.service import KEEP_ALIVE_S, STARTS, QuietServer, listening
from orchestrator.http.app import build
from orchestrator.http.client import Client
from orchestrator.http.gate import Rules
from orchestrator.limits import Limits
from orchestrator.live.limits import ServiceLimits
from tests.fakes.lanes import Behaviour
from tests.fakes.studio import Studio, picture
from tests.fakes.world import usual

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Web:
    """A served studio: its address, and its loop to look into it."""

    url: str
    studio: Studio
    loop: asyncio.AbstractEventLoop

    def ask(self, answer: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(answer, self.loop).result(30)


@contextmanager
def served(
    make: Callable[[], Studio], rules: Rules | None = None, port: int = 0, *, warm: bool = True
) -> Iterator[Web]:
    """Serve what ``make`` makes until the block ends; without ``warm`` its lanes never are."""
    ready: list[Web] = []
    there, done = threading.Event(), list[Callable[[], object]]()

    async def main(listener: socket.socket) -> None:
        studio, loop = make(), asyncio.get_running_loop()
        end = asyncio.Event()
        app = build(studio.service, rules or Rules(), starts=STARTS)
        server = QuietServer(
            uvicorn.Config(
                app,
                log_config=None,
                lifespan="off",
                ws="websockets-sansio",
                ws_per_message_deflate=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=3,
            )
        )
        web = asyncio.create_task(server.serve(sockets=[listener]))
        if warm:
            await studio.start()
        done.append(lambda: loop.call_soon_threadsafe(end.set))
        ready.append(Web(f"http://127.0.0.1:{listener.getsockname()[1]}", studio, loop))
        there.set()
        await end.wait()
        if warm:
            await studio.stop()
        server.should_exit = True
        await web

    with listening("127.0.0.1", port) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(main(listener)))
        thread.start()
        assert there.wait(30)
        try:
            yield ready[0]
        finally:
            done[0]()
            thread.join(30)
            assert not thread.is_alive()


def quick(order: Order) -> float:
    """As fast as lets a test see an order."""
    return usual(order) * 0.01


def quick_studio(
    store: Store | None = None, behaviour: Behaviour = quick, kind: type[Studio] = Studio, **changes: Any
) -> Studio:
    return kind(store or open_store(f"memory://{uuid4().hex}"), aside=asyncio.to_thread, behaviour=behaviour, **changes)


def stuck_studio(service: ServiceLimits | None = None, **limits: int) -> Studio:
    """One whose chunks never come, and that does not wait for them when it ends."""

    def stuck(order: Order) -> float:
        return 1e6 if isinstance(order, DenoiseOrder) else quick(order)

    return quick_studio(behaviour=stuck, service=service, limits=Limits(grace_seconds=0.0, **limits))


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

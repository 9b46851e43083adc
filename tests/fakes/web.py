"""A studio behind a real web server, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import uvicorn

from jobs.service import QuietServer, listening
from orchestrator.http.app import build
from orchestrator.http.gate import Rules
from tests.fakes.studio import Studio

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
def served(make: Callable[[], Studio], rules: Rules | None = None, port: int = 0) -> Iterator[Web]:
    """Serve what ``make`` makes until the block ends."""
    ready: list[Web] = []
    there, done = threading.Event(), list[Callable[[], object]]()

    async def main(listener: socket.socket) -> None:
        studio, loop = make(), asyncio.get_running_loop()
        end = asyncio.Event()
        app = build(studio.service, rules or Rules())
        server = QuietServer(
            uvicorn.Config(app, log_config=None, lifespan="off", ws="websockets-sansio", timeout_graceful_shutdown=3)
        )
        web = asyncio.create_task(server.serve(sockets=[listener]))
        await studio.start()
        done.append(lambda: loop.call_soon_threadsafe(end.set))
        ready.append(Web(f"http://127.0.0.1:{listener.getsockname()[1]}", studio, loop))
        there.set()
        await end.wait()
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

"""Ray Serve's gateway at high water: how long those wait who can only be told to come again.

The real thing on a local cluster: Serve's proxy, the replica, lanes of the tiny preset. One session has the only place
and nobody may wait, so every arrival is refused. Arrivals come by the clock, not when the one before is answered, and
each is timed from the moment at which it was due.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from jobs.config import resolve
from jobs.gateway import APPLICATION, bound
from jobs.service import Place
from orchestrator.http.client import Client
from tests.ray.runs import INPUTS, ROOT, SMALL
from tests.servers.child import free_port
from tests.servers.cluster import local_cluster

WARM_UP_S = 1.0
_TIMEOUT_S = 60.0


def measured(arrivals: float = 50.0, seconds: float = 10.0) -> list[float]:
    """Seconds from each arrival, ``arrivals`` of them a second, to its refusal. RuntimeError for any other answer."""
    with at_high_water() as url:
        asyncio.run(refusals(url, arrivals, WARM_UP_S))
        return asyncio.run(refusals(url, arrivals, seconds))


@contextmanager
def at_high_water() -> Iterator[str]:
    """The address of a service on Ray Serve that has no room, until the block ends; no process of it is left."""
    from ray import serve

    full = (*SMALL, "limits.max_sessions=1", "limits.max_queued=0")
    place = Place("127.0.0.1", free_port())
    url = f"http://{place.host}:{place.port}"
    with tempfile.TemporaryDirectory() as out, local_cluster(ROOT):
        serve.start(http_options={"host": place.host, "port": place.port})
        application = bound(resolve("tiny-gamecraft", sets=full), out, place.rules())
        handle = serve.run(application, name=APPLICATION)
        try:
            handle.ready.remote().result()
            with Client(url) as client:
                client.create("A harbour.", image=INPUTS / "harbour.png")
                yield url
            handle.drain.remote().result()
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


async def refusals(url: str, arrivals: float, seconds: float) -> list[float]:
    """Ask for sessions at ``url``, ``arrivals`` a second, whatever becomes of those before."""
    picture = (INPUTS / "harbour.png").read_bytes()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits) as http:
        began = time.perf_counter()

        async def one(number: int) -> float:
            due = began + number / arrivals
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            answer = await http.post("/v1/sessions", data={"prompt": "A harbour."}, files={"image": picture})
            waited = time.perf_counter() - due
            if answer.status_code != 429 or "retry-after" not in answer.headers:
                raise RuntimeError(f"answered {answer.status_code}: {answer.text[:200]}")
            if answer.json()["error"]["position"] != 1:
                raise RuntimeError(f"a wrong place in the queue: {answer.text[:200]}")
            return waited

        return await asyncio.gather(*(one(number) for number in range(int(arrivals * seconds))))

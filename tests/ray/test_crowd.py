"""200 clients at once on the tiny preset's own models: each gets the very bytes of its session, or is told to wait."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gamecraft_core.media.fragment import probe
from orchestrator.http.client import AsyncClient, ServiceError
from tests.ray.runs import INPUTS, SMALL
from tests.ray.serving import DEADLINE_S, Serving
from tests.servers.child import free_port
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray

CLIENTS, ACTIVE, QUEUED, RETRY_S = 200, 12, 12, 3.0
#: Sessions differ by their seed; those of one seed must not differ.
SEEDS = 4
IMAGE = (INPUTS / "harbour.png").read_bytes()
#: What all of them together may add to the private memory of a service that has served one of each.
CROWD_BYTES = 128 << 20


def private(pid: int) -> int:
    """Bytes of memory that the process shares with nobody: the object store is none of it."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


async def visit(client: AsyncClient, seed: int, everybody: asyncio.Barrier) -> bytes | None:
    """A session's video as it was streamed, None where there was no room; nobody makes room before all have asked."""
    made = None
    with suppress_overload():
        made = await client.create("A harbour.", image=IMAGE, actions="w", seed=seed)
    await everybody.wait()
    if made is None:
        return None
    await client.finish(made["id"])
    return b"".join([piece.data async for piece in client.watch(made["id"])])


@contextmanager
def suppress_overload() -> Iterator[None]:
    """Of what a client is told, only that there is no room, what its place would be, and when to come again."""
    try:
        yield
    except ServiceError as error:
        if (error.status, error.position, error.retry_after) != (429, QUEUED + 1, RETRY_S):
            raise


async def crowd(url: str, clients: int) -> list[bytes | None]:
    everybody = asyncio.Barrier(clients)
    async with AsyncClient(url, patience=DEADLINE_S) as client, asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*(visit(client, number % SEEDS, everybody) for number in range(clients)))


def test_two_hundred_at_once(ray_cluster: RayCluster, tmp_path: Path) -> None:
    limits = (f"limits.max_sessions={ACTIVE}", f"limits.max_queued={QUEUED}", f"service.retry_seconds={RETRY_S}")
    with Serving(ray_cluster, tmp_path, free_port(), settings=(*SMALL, *limits)) as serving:
        alone = asyncio.run(crowd(serving.url, SEEDS))
        before = private(serving.process.pid)
        videos = asyncio.run(crowd(serving.url, CLIENTS))
        grown = private(serving.process.pid) - before
        assert asyncio.run(crowd(serving.url, 1)) == alone[:1], "who comes again finds room"
        assert serving.end(signal.SIGTERM) == 0, serving.log.read_text()
    assert [probe(video).frames for video in alone if video] == [33] * SEEDS
    assert len(set(alone)) == SEEDS
    served = [(video, number) for number, video in enumerate(videos) if video is not None]
    assert len(served) == ACTIVE + QUEUED
    assert all(video == alone[number % SEEDS] for video, number in served)
    assert grown < CROWD_BYTES, f"{grown >> 20} MiB"

"""The service on a real cluster: played over a WebSocket, killed in the middle of it, and gone on with."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest

from gamecraft_core.dataset import layout
from gamecraft_core.media.fragment import probe
from orchestrator.http.client import AsyncClient, Client, Piece
from tests.ray.runs import INPUTS
from tests.ray.serving import DEADLINE_S, Serving
from tests.servers.child import free_port
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray


def denoised(url: str) -> int:
    """Chunks that the service has denoised, by its own metrics."""
    prefix = 'gamecraft_chunk_stage_seconds_count{stage="denoise"} '
    (line,) = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith(prefix)]
    return int(float(line.removeprefix(prefix)))


def test_a_session_is_played_and_survives_the_death_of_its_service(ray_cluster: RayCluster, tmp_path: Path) -> None:
    port = free_port()
    got, kinds, steps = b"", list[str](), list[dict[str, Any]]()
    with Serving(ray_cluster, tmp_path, port) as serving, Client(serving.url, patience=DEADLINE_S) as client:
        name = client.create("A harbour.", image=INPUTS / "harbour.png", actions="w d", seed=7)["id"]
        pieces = client.watch(name)
        for piece in pieces:
            got += piece.data
            kinds.append(str(piece.event.get("type")))
            steps += [piece.event] if kinds[-1] == "denoising" else []
            if piece.chunk == 1:
                break
        assert [client.control(name, action, at)["first"] for at, action in ((2, "a"), (3, "left_rot:1.5"))] == [2, 3]
        assert serving.end(signal.SIGKILL) == -signal.SIGKILL
        durable = len(list((tmp_path / "out" / layout.staging_folder(name)).iterdir()))
        with Serving(ray_cluster, tmp_path, port) as again:
            for piece in pieces:
                got += piece.data
                kinds.append(str(piece.event.get("type")))
                if piece.chunk == 3:
                    client.finish(name)
            video = client.video(name)
            record = client.records(name)
            made = denoised(again.url)
            assert again.end(signal.SIGTERM) == 0, again.log.read_text()
    assert got == video, "what was streamed across the two is what was stored"
    facts = probe(video)
    assert (facts.frames, facts.fps, facts.monotonic, facts.width, facts.height) == (132, Fraction(25), True, 48, 32)
    controls = [chunk["control"]["action"] for chunk in record["chunks"]]
    assert controls == ["w", "d", "a", "left_rot"]
    assert {"denoised", "decoded", "stored", "committed"} <= set(kinds)
    assert made == 4 - durable, "what was durable is not made again"
    assert kinds.count("state") == 2
    # How many looks fall into so short a chunk, nobody can say; tests/sim sees every step.
    assert all(0 <= step["step"] <= step["steps"] == 3 for step in steps)


def test_a_video_made_from_its_end_is_previewed_and_streams_when_its_beginning_is_there(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    with Serving(ray_cluster, tmp_path, free_port(), preset="tiny-framepack") as serving, Client(serving.url) as client:
        name = client.create("A harbour.", image=INPUTS / "harbour.png", seconds=3.6)["id"]
        pieces = list(client.watch(name))
        video = client.video(name)
        assert serving.end(signal.SIGTERM) == 0, serving.log.read_text()
    assert b"".join(piece.data for piece in pieces) == video
    assert (probe(video).frames, probe(video).monotonic) == (109, True)
    told = _told(pieces)
    assert [chunk for kind, chunk in told if kind == "decoded"] == [2, 1, 0], "in time order"
    assert {chunk for kind, chunk in told if kind == "preview"} <= {0, 1, 2}
    assert any(kind == "preview" for kind, _ in told)
    first = next(at for at, piece in enumerate(pieces) if piece.data)
    assert ("denoised", 2) in _told(pieces[:first])


def _told(pieces: Sequence[Piece]) -> list[tuple[str, int | None]]:
    """Events' types and chunks."""
    return [(piece.event["type"], piece.event.get("chunk")) for piece in pieces if piece.event]


def test_what_is_played_goes_before_a_batch_job(ray_cluster: RayCluster, tmp_path: Path) -> None:
    """One denoise group; four videos of six chunks are under way when two people begin to play."""
    with Serving(ray_cluster, tmp_path, free_port()) as serving:
        order = asyncio.run(_beside_a_batch(serving.url))
        assert serving.end(signal.SIGTERM) == 0, serving.log.read_text()
    kinds = "".join(name[0] for name, _ in order)
    assert kinds.count("p") == 2 * 4
    assert kinds.count("v") == 4 * 6, "the batch job is finished all the same"
    played = kinds[kinds.index("p") : kinds.rindex("p") + 1]
    assert played.count("v") <= 2, f"{kinds}: while somebody plays, no more of the batch than was under way"
    turns = [name for name, _ in order if name[0] == "p"]
    leads = [turns[:end].count("p0") - turns[:end].count("p1") for end in range(len(turns))]
    assert all(abs(lead) <= 2 for lead in leads), f"{turns}: the players take turns"


async def _beside_a_batch(url: str) -> list[tuple[str, int]]:
    """(session, chunk) in the order in which they were denoised; v0 to v3 are the videos, p0 and p1 those played."""
    order: list[tuple[str, int]] = []
    begun = asyncio.Event()

    async def watch(client: AsyncClient, name: str, session: str) -> None:
        async for piece in client.watch(session):
            if piece.event.get("type") == "denoised":
                order.append((name, piece.event["chunk"]))
                begun.set()

    async with (
        AsyncClient(url, patience=DEADLINE_S) as client,
        httpx.AsyncClient(base_url=url, timeout=60) as plain,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(4):
            picture = {"input_reference": (INPUTS / "harbour.png").read_bytes()}
            form = {"prompt": "A harbour.", "actions": "w*6", "seed": str(number)}
            answer = await plain.post("/v1/videos", data=form, files=picture)
            tasks.create_task(watch(client, f"v{number}", answer.raise_for_status().json()["id"]))
        await begun.wait()
        image = INPUTS / "harbour.png"
        players = [(await client.create("A harbour.", image=image, seed=number))["id"] for number in range(2)]
        for number, session in enumerate(players):
            tasks.create_task(watch(client, f"p{number}", session))
        for session in players:
            await client.control(session, actions="w d a s")
        for session in players:
            await client.finish(session)
    return order

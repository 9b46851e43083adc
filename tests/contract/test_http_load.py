"""200 clients at once, and readers that do not read: the service in a process of its own, whose memory is looked at.

Lanes are emulated; web server, sessions, engine and store are real. Each client's frames tell its session's seed and
their own numbers (``level_of``), so a piece of another's stream, or of another place in it, would show.
"""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from orchestrator.http.client import AsyncClient, Client, ServiceError
from tests.fakes.recordings import level_of
from tests.fakes.studio import picture
from tests.servers.child import ServerChild
from tests.servers.emulated_service import Emulation, emulated

MIB = 1 << 20
CLIENTS, ACTIVE, QUEUED, CHUNKS, FRAMES = 200, 96, 64, 2, 33
LANES = {"text": 1, "encode": 2, "denoise": 16, "decode": 4, "write": 4}
SECONDS = {"DenoiseOrder": 0.02, "DecodeOrder": 0.005}
MEDIA_BYTES = 8 * MIB
#: What 200 watched sessions may add to the resident memory of a server that has served one, and 200 more after them.
CROWD_BYTES, NEXT_CROWD_BYTES = 80 * MIB, 24 * MIB

#: A session of heavy chunks, and how many take in nothing of it: by WebSocket, and as many by plain HTTP.
HEAVY_CHUNKS, HEAVY_SIDE, LAZY = 24, 192, 6
#: What a reader may hold up: the chunk that is on its way to it and its copy in the web server.
LAZY_CHUNKS = 2
#: What the process needs besides to make a session that it has made before.
SLACK_BYTES = 32 * MIB

DEADLINE_S = 300.0


def resident(server: ServerChild) -> tuple[int, int]:
    """Bytes of memory that the server's process holds, and the most that it has held since they were last reset."""
    status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in status)
    now, most = (int(facts[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


@contextmanager
def growth(server: ServerChild) -> Iterator[list[int]]:
    """By how much the server's memory had grown at its most when the block ends."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    before, _ = resident(server)
    grown: list[int] = []
    yield grown
    grown.append(resident(server)[1] - before)


async def entered(client: AsyncClient, seed: int) -> str | None:
    """A new session's id; None where there is no room."""
    try:
        return str((await client.create(f"number {seed}", image=picture(), actions="w", seed=seed))["id"])
    except ServiceError as error:
        if (error.status, error.position, error.retry_after) != (429, QUEUED + 1, 1.0):
            raise
        return None


async def visit(server: ServerChild, seed: int, everybody: asyncio.Barrier) -> tuple[bytes, bool]:
    """The video that a client was streamed, and whether it was let in at once.

    Nobody goes on before all have had an answer; who was refused comes again as it was told.
    """
    async with AsyncClient(server.url, patience=DEADLINE_S) as client:
        name = await entered(client, seed)
        at_once = name is not None
        await everybody.wait()
        while name is None:
            await asyncio.sleep(1.0)
            name = await entered(client, seed)
        await client.control(name, f"d*{CHUNKS - 1}", 1)
        await client.finish(name)
        got = await (streamed(server, name) if seed % 2 else watched(client, name))
        assert got == await client.video(name)
    return got, at_once


async def watched(client: AsyncClient, name: str) -> bytes:
    return b"".join([piece.data async for piece in client.watch(name)])


async def streamed(server: ServerChild, name: str) -> bytes:
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S) as http:
        return (await http.get(f"/v1/sessions/{name}/stream.mp4")).raise_for_status().content


async def crowd(server: ServerChild, clients: int) -> list[tuple[bytes, bool]]:
    everybody = asyncio.Barrier(clients)
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*(visit(server, seed, everybody) for seed in range(clients)))


def check(video: bytes, seed: int) -> None:
    """Every frame is there, in its place, 40 ms after the one before, and of this session."""
    with av.open(io.BytesIO(video), "r") as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    numbers = range(CHUNKS * FRAMES)
    assert [at for at, _ in frames] == pytest.approx([0.04 * number for number in numbers], abs=1e-4)
    assert [level for _, level in frames] == pytest.approx([level_of(number, seed) for number in numbers], abs=4)


def test_two_hundred_at_once(tmp_path: Path) -> None:
    emulation = Emulation(
        str(tmp_path / "out"),
        SECONDS,
        LANES,
        limits={"max_sessions": ACTIVE, "max_queued": QUEUED},
        service={"retry_seconds": 1.0, "linger_seconds": 0.0, "media_bytes": MEDIA_BYTES},
    )
    with emulated(emulation, tmp_path / "log") as server:
        asyncio.run(crowd(server, 1))  # whatever is imported, or made once, is there
        for most in (CROWD_BYTES, NEXT_CROWD_BYTES):
            with growth(server) as grown:
                visits = asyncio.run(crowd(server, CLIENTS))
            assert sum(at_once for _, at_once in visits) == ACTIVE + QUEUED
            for seed, (video, _) in enumerate(visits):
                check(video, seed)
            assert grown[0] < most, f"{grown[0] / MIB:.0f} MiB"


def asked_for_stream(server: ServerChild, name: str) -> socket.socket:
    """A connection that holds little, on which the plain stream was asked for, and nothing read."""
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    connection.connect((address.hostname, address.port))
    connection.sendall(f"GET /v1/sessions/{name}/stream.mp4 HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    return connection


def rest_of_stream(connection: socket.socket) -> bytes:
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.read()


def rest_of_socket(connection: ClientConnection) -> bytes:
    return b"".join(message for message in connection if isinstance(message, bytes))


def test_who_does_not_read_is_held_back(tmp_path: Path) -> None:
    """Meanwhile the whole session is made and watched by somebody else; later they get all of it."""
    emulation = Emulation(str(tmp_path / "out"), service={"media_bytes": MIB}, grainy=True)
    with (
        emulated(emulation, tmp_path / "log") as server,
        Client(server.url, patience=DEADLINE_S) as client,
        ExitStack() as lazy,
    ):

        def begun() -> str:
            settings: dict[str, Any] = {"actions": f"w*{HEAVY_CHUNKS}", "height": HEAVY_SIDE, "width": HEAVY_SIDE}
            return str(client.create("Noise.", image=picture(), **settings)["id"])

        def made(name: str) -> bytes:
            client.finish(name)
            return b"".join(piece.data for piece in client.watch(name))

        made(begun())  # the next is the same but for its name
        name = begun()
        sockets = [
            lazy.enter_context(connect(f"ws{server.url[4:]}/v1/sessions/{name}/stream", max_queue=1))
            for _ in range(LAZY)
        ]
        streams = [lazy.enter_context(asked_for_stream(server, name)) for _ in range(LAZY)]
        with growth(server) as grown:
            video = made(name)
        held = 2 * LAZY * len(video)
        most = SLACK_BYTES + held * LAZY_CHUNKS // HEAVY_CHUNKS
        assert held > 3 * most, "without being held back they would be seen"
        assert grown[0] < most, f"{grown[0] / MIB:.0f} MiB, and {most / MIB:.0f} are allowed"
        assert video == client.video(name)
        assert [rest_of_socket(each) for each in sockets] == [video] * LAZY
        assert [rest_of_stream(each) for each in streams] == [video] * LAZY

"""The service: what it adds to the seconds of its stages, and how fast it says that there is no room.

*Action to first frame*: eight people play at once, each sends a control when the chunk before has come; counted is the
time from the control to the chunk's bytes, less the emulated seconds of denoise and decode. Everything else is real:
WebSocket, durable promises, scheduler, store, and in the second figure Ray's actors between them. Encoded frames come
from a cache, for encoding is a part of the decode stage. *No room*: 200 connections ask in the same moment, of a
server that has just started and has answered one request; the time is that of each from its own first packet on.

The clients' own work is in every figure.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.bench import serve_gateway
from tests.bench.harness import Bench
from tests.fakes.studio import picture
from tests.servers.emulated_service import Emulation, emulated

GOAL_OVERHEAD_MS, GOAL_REFUSAL_MS, GOAL_GATEWAY_MS = 150.0, 50.0, 250.0

PLAYERS, CHUNKS, CROWD, SAMPLES = 8, 20, 200, 5
SECONDS = {"DenoiseOrder": 0.25, "DecodeOrder": 0.1}
LANES = {"text": 1, "encode": 1, "denoise": PLAYERS, "decode": PLAYERS, "write": 2}
ON_RAY = "tests.bench.played_on_ray"
HERE = Emulation.__module__

_BODY = b'{"prompt": "x", "image": "data:image/png;base64,AAAA"}'


def p95(seconds: Sequence[float]) -> float:
    """In milliseconds."""
    return 1000 * statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def overheads(module: str, players: int = PLAYERS, chunks: int = CHUNKS, samples: int = SAMPLES) -> list[float]:
    """The 95th percentile of some rounds of playing, in milliseconds; ``module`` is the server's."""
    with tempfile.TemporaryDirectory() as folder:
        emulation = Emulation(f"{folder}/out", SECONDS, LANES)
        with emulated(emulation, Path(folder) / "log", module) as server:
            asyncio.run(_played(server.url, players, chunks))  # fills caches of frames
            return [p95(asyncio.run(_played(server.url, players, chunks))) for _ in range(samples)]


async def _played(url: str, players: int, chunks: int) -> list[float]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        return [each for took in await asyncio.gather(*(_play(http, chunks) for _ in range(players))) for each in took]


async def _play(http: httpx.AsyncClient, chunks: int) -> list[float]:
    """Seconds beyond the stages' own for every chunk but the first, which waits for text and image as well."""
    answer = await http.post("/v1/sessions", data={"prompt": "A harbour."}, files={"image": picture()})
    name = answer.raise_for_status().json()["id"]
    took = []
    async with connect(f"ws{str(http.base_url).removeprefix('http').rstrip('/')}/v1/sessions/{name}/stream") as stream:
        for chunk in range(chunks):
            began = time.perf_counter()
            await stream.send(json.dumps({"actions": "w", "at": chunk}))
            await _until(stream, chunk)
            took.append(time.perf_counter() - began - sum(SECONDS.values()))
    (await http.post(f"/v1/sessions/{name}/cancel")).raise_for_status()
    return took[1:]


async def _until(stream: ClientConnection, chunk: int) -> None:
    """The bytes of ``chunk`` have come."""
    announced = None
    async for message in stream:
        if isinstance(message, bytes):
            if announced == chunk:
                return
        elif (told := json.loads(message))["type"] == "segment":
            announced = told["chunk"]
    raise RuntimeError(f"the stream ended before chunk {chunk}")


def refusals(crowd: int = CROWD) -> tuple[float, float]:
    """95th percentiles in milliseconds, of a fresh server: connecting included, and on the connections there are."""
    full = {"max_sessions": 1, "max_queued": 0, "grace_seconds": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        emulation = Emulation(f"{folder}/out", {"DenoiseOrder": 1e6}, limits=full)
        with emulated(emulation, Path(folder) / "log") as server:
            begun = httpx.post(
                f"{server.url}/v1/sessions", data={"prompt": "x", "actions": "w"}, files={"image": picture()}
            )
            begun.raise_for_status()
            connections = [socket.socket() for _ in range(crowd)]
            try:
                return p95(_refused(server.url, connections, connected=False)), p95(
                    _refused(server.url, connections, connected=True)
                )
            finally:
                for each in connections:
                    each.close()


def _refused(url: str, connections: Sequence[socket.socket], *, connected: bool) -> list[float]:
    """Seconds from each connection's first packet to the whole answer. Bare sockets: a client's work would count."""
    address = urlsplit(url)
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY
    began: dict[socket.socket, float] = {}
    got: dict[socket.socket, bytes] = dict.fromkeys(connections, b"")
    took = []
    with selectors.DefaultSelector() as selector:

        def read(timeout: float | None) -> None:
            for key, _ in selector.select(timeout):
                each = next(connection for connection in (key.fileobj,) if isinstance(connection, socket.socket))
                got[each] += each.recv(1 << 16)
                if _whole(got[each]):
                    took.append(time.perf_counter() - began[each])
                    selector.unregister(each)

        for each in connections:
            began[each] = time.perf_counter()
            if not connected:
                each.connect((address.hostname, address.port))
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.sendall(request)
            selector.register(each, selectors.EVENT_READ)
            read(0)  # an answer is timed when it comes, not when the last one has asked
        while selector.get_map():
            read(None)
    return took


def _whole(answer: bytes) -> bool:
    """All of it has come. RuntimeError where it is no refusal."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if not head.startswith(b"HTTP/1.1 429 ") or b"retry-after" not in lines:
        raise RuntimeError(f"answered {answer[:300]!r}")
    return len(body) >= int(lines[b"content-length"])


def main() -> int:
    bench = Bench("serve", {"players": PLAYERS, "chunks": CHUNKS, "crowd": CROWD, "seconds": SECONDS})
    bench.figure("action_to_first_frame_overhead_p95", overheads(HERE), "ms", goal=GOAL_OVERHEAD_MS)
    bench.figure("the_same_over_ray_actors_p95", overheads(ON_RAY), "ms", goal=GOAL_OVERHEAD_MS)
    fresh, connected = zip(*(refusals() for _ in range(SAMPLES)), strict=True)
    bench.figure("refusal_of_200_at_once_p95", fresh, "ms", goal=GOAL_REFUSAL_MS)
    bench.figure("the_same_on_open_connections_p95", connected, "ms", goal=GOAL_REFUSAL_MS)
    bench.figure("refusal_through_ray_serve_p95", p95(serve_gateway.measured()), "ms", goal=GOAL_GATEWAY_MS)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())

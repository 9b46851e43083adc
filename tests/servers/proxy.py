"""A TCP proxy with faults: what a network does to a client, shown to it between the client and a real server.

It runs on a thread of its own and is steered from the test with ``fault``; a fault holds for ``count`` requests or
connections, then traffic passes again. Faults that HTTP-level fakes cannot show live here: a reply that is lost
*after* the server acted, and a peer that accepts and then says nothing.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["pass", "latency", "refuse", "silent", "unavailable", "drop_reply", "cut_reply"]

_ENDLESS = 1 << 62
_BLOCK = 1 << 16
_INTERIM = b"HTTP/1.1 100"
_CUT_AFTER = 1024
_MOST_HEADER_BYTES = 1 << 17
_BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
_UNAVAILABLE = b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(_BUSY)


@dataclass
class _Fault:
    """The fault in force: it has ``left`` more victims."""

    mode: Mode = "pass"
    left: int = _ENDLESS
    seconds: float = 0.0
    met: int = 0

    def strike(self, *modes: Mode) -> bool:
        """Whether the caller is the next victim of one of ``modes``."""
        if self.mode not in modes or self.left <= 0:
            return False
        self.left -= 1
        self.met += 1
        return True


@dataclass
class _Exchange:
    """What is under way on one connection: the method that waits for its reply, "" when none does."""

    method: bytes = b""


class FaultProxy:
    """Forwards ``url`` (the proxy's own) to ``target`` inside a ``with`` block.

    ``latency``: a block of bytes, in either direction, is held for ``seconds``. ``refuse``: a new connection is reset.
    ``silent``: a new connection is accepted and never answered. ``unavailable``: the proxy itself answers a request
    with 503 Slow Down, and the server never hears of it. ``drop_reply``: the server gets the whole request and acts;
    its reply is thrown away and the connection reset. ``cut_reply``: only the reply's first kilobyte arrives.

    ``stored`` counts the PUTs that the server has confirmed to their client.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._fault = _Fault()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")
        self._connections: set[asyncio.Task[None]] = set()
        self.url = ""
        self.stored = 0

    def fault(self, mode: Mode, count: int = _ENDLESS, seconds: float = 0.0) -> None:
        """From now on do ``mode`` to the next ``count`` connections, requests, replies or blocks."""
        self._fault = _Fault(mode, count, seconds)

    @property
    def met(self) -> int:
        """How often the fault in force has struck."""
        return self._fault.met

    def disconnect(self) -> None:
        """Reset every connection there is; ``refuse`` alone leaves those that are open."""
        self._loop.call_soon_threadsafe(self._reset)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_MOST_HEADER_BYTES)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stop.wait()
        server.close()
        self._reset()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _reset(self) -> None:
        for task in list(self._connections):
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._carry(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault.strike("refuse"):
            return
        if self._fault.strike("silent"):
            while await reader.read(_BLOCK):
                pass
            return
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        exchange = _Exchange()
        ways = [
            asyncio.ensure_future(self._requests(reader, server_writer, writer, exchange)),
            asyncio.ensure_future(self._replies(server_reader, writer, exchange)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server_writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
        exchange: _Exchange,
    ) -> None:
        """Request by request: a client sends the next one when it has its reply, and says how long each body is."""
        with suppress(asyncio.IncompleteReadError):
            while header := await reader.readuntil(b"\r\n\r\n"):
                left = _content_length(header)
                if self._fault.strike("unavailable"):
                    if not _asks_first(header):
                        await reader.readexactly(left)
                    writer.write(_UNAVAILABLE + _BUSY)
                    await writer.drain()
                    continue
                exchange.method = header.partition(b" ")[0]
                await self._forward(header, server)
                while left and (block := await reader.read(min(left, _BLOCK))):
                    left -= len(block)
                    await self._forward(block, server)

    async def _forward(self, block: bytes, server: asyncio.StreamWriter) -> None:
        await self._hold()
        server.write(block)
        await server.drain()

    async def _replies(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, exchange: _Exchange) -> None:
        while block := await server.read(_BLOCK):
            interim, block = _split_interim(block)
            writer.write(interim)
            if block and self._fault.strike("drop_reply"):
                return
            if block and self._fault.strike("cut_reply"):
                writer.write(block[:_CUT_AFTER])
                await writer.drain()
                writer.write_eof()
                return
            await self._hold()
            if block:  # counted before it is sent: whoever has the reply finds it counted
                self.stored += exchange.method == b"PUT" and block.startswith(b"HTTP/1.1 2")
                exchange.method = b""
            writer.write(block)
            await writer.drain()

    async def _hold(self) -> None:
        if self._fault.strike("latency"):
            await asyncio.sleep(self._fault.seconds)


def _split_interim(block: bytes) -> tuple[bytes, bytes]:
    """Leading ``100 Continue``s only invite the request's body: they are not the reply that a fault may lose."""
    rest = block
    while rest.startswith(_INTERIM):
        rest = rest.partition(b"\r\n\r\n")[2]
    return block[: len(block) - len(rest)], rest


def _content_length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _asks_first(header: bytes) -> bool:
    """The client waits to be invited before it sends the body."""
    return b"\r\nexpect: 100-continue" in header.lower()

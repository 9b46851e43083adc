"""Streams of a session: its chunks and its events, each a loop with a cursor.

Nothing is queued for a client: the next piece is asked for when the last one has been taken, so a slow client only
comes later. Whoever is cut off comes back with the number of the last event and the next chunk it wants. A browser that
cannot play segments asks for their frames as JPEGs instead.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gamecraft_core.base.errors import FramelaneError, StoreUnavailable
from gamecraft_core.media.jpeg import singles
from orchestrator.http.answers import of_error
from orchestrator.live.port import SETTLED, Conflict, News, NotReady, Overloaded, Refused, Service

log = logging.getLogger("framelane.http")

#: A comment goes out after so long without an event: proxies end what is silent.
_SILENCE_S = 15.0
#: WebSocket's codes: normal; "come back", for the service restarts, or is not ready; and one of ours.
_DONE, _RESTARTS, _LATER, _REFUSED = 1000, 1012, 1013, 4000

Piece = TypeVar("Piece")

#: What a chunk is sent as.
Media = Literal["mp4", "jpeg"]
#: Pixels of a JPEG's longer side, and chunks that become JPEGs at once: it is this process's CPU that they take.
_LONGEST, _AT_ONCE = 640, 2
#: Seconds after which it makes sense to come back to a service that restarts.
_BACK_S = 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a listener wants: events after a number, and chunks from one on."""

    after: int | None
    first: int
    media: Media = "mp4"


class Pictures:
    """Chunks of ``service`` as JPEGs, made when they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def of(self, session_id: str, tenant: str, index: int) -> list[tuple[int, bytes]]:
        """One for each frame, and its number."""
        async with self._turn:
            init = await self._service.init(session_id, tenant)
            segment = await self._service.segment(session_id, tenant, index)
            return await asyncio.to_thread(singles, init.data + segment, _LONGEST) if segment else []


class Cuttable(StreamingResponse):
    """Whose client sees the transfer cut where not everything came: without its last piece it never ends properly."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except FramelaneError as error:
            log.info("a stream is cut: %s", error)


async def segments(service: Service, session_id: str, tenant: str, first: int) -> AsyncIterator[bytes]:
    """The session's fragmented MP4 from chunk ``first`` on: the init segment, then each chunk once it is there.

    Raises NotReady where this process ends before the session does.
    """
    cursor, index, last = None, first, ""
    while True:
        news = await service.news(session_id, tenant, cursor)
        cursor, last = news.cursor, _last(news, last)
        while index < news.shown:
            asked = service.segment(session_id, tenant, index)
            if (data := await _standing(service, session_id, tenant, index, asked)) is None:
                break
            if index == first:
                yield (await service.init(session_id, tenant)).data
            yield data
            index += 1
        if news.over and last not in SETTLED:
            raise NotReady(f"chunk {index} comes after a restart", retry_after=_BACK_S)
        if news.over:
            return


async def server_sent(service: Service, session_id: str, tenant: str, after: int | None) -> AsyncIterator[str]:
    """The session's events in the form of server-sent events."""
    while True:
        try:
            async with asyncio.timeout(_SILENCE_S):
                news = await service.news(session_id, tenant, after)
        except TimeoutError:
            yield ": still here\n\n"
            continue
        after = news.cursor
        for event in news.events:
            yield f"id: {event['seq']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
        if news.over:
            return


async def socket(
    service: Service, pictures: Pictures, socket: WebSocket, session_id: str, tenant: str, wish: Wish
) -> None:
    """Events as text, chunks as bytes (announced by a text); controls come in. Until either side has had enough."""
    await socket.accept()
    parts = [
        asyncio.create_task(_tell(service, pictures, socket, session_id, tenant, wish)),
        asyncio.create_task(_hear(service, socket, session_id, tenant)),
    ]
    try:
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        code = next(iter(done)).result()
        if code:
            await socket.close(code)
    except (Overloaded, StoreUnavailable):
        await socket.close(_LATER)
    except FramelaneError as error:
        await socket.send_json(_error(error))
        await socket.close(_REFUSED)
    except WebSocketDisconnect:
        pass
    finally:
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)


async def _tell(
    service: Service, pictures: Pictures, socket: WebSocket, session_id: str, tenant: str, wish: Wish
) -> int:
    """Send what there is; the code to close with."""
    index, last, after = wish.first, "", wish.after
    while True:
        news = await service.news(session_id, tenant, after)
        after, last = news.cursor, _last(news, last)
        for event in news.events:
            await socket.send_json(event)
        while index < news.shown:
            media = _frames if wish.media == "jpeg" else _segment
            asked = media(service, pictures, session_id, tenant, index)
            if (found := await _standing(service, session_id, tenant, index, asked)) is None:
                break
            if index == wish.first and wish.media == "mp4":
                init = await service.init(session_id, tenant)
                await socket.send_json({"type": "init", "codec": init.codec, "bytes": len(init.data)})
                await socket.send_bytes(init.data)
            told, data = found
            if data:  # a chunk that settles no frames has none
                await socket.send_json({**told, "chunk": index})
                await socket.send_bytes(data)
            index += 1
        if news.over:  # maybe it was before, and the cursor is its last event's
            last = last or (await service.describe(session_id, tenant))["status"]
            return _DONE if last in SETTLED else _RESTARTS


async def _frames(
    service: Service, pictures: Pictures, session_id: str, tenant: str, index: int
) -> tuple[dict[str, Any], bytes]:
    """A chunk's pictures beside each other, and what is said of them: the first one's number, and their sizes."""
    frames = await pictures.of(session_id, tenant, index)
    told = {"type": "frames", "start": frames[0][0] if frames else 0, "sizes": [len(frame) for _, frame in frames]}
    return told, b"".join(frame for _, frame in frames)


async def _segment(
    service: Service, pictures: Pictures, session_id: str, tenant: str, index: int
) -> tuple[dict[str, Any], bytes]:
    data = await service.segment(session_id, tenant, index)
    return {"type": "segment", "bytes": len(data)}, data


async def _standing(
    service: Service, session_id: str, tenant: str, index: int, asked: Awaitable[Piece]
) -> Piece | None:
    """What is ``asked`` of chunk ``index``; None where that is not shown any more, and will be again.

    After a restart it may turn out that a durable chunk does not fit.
    """
    try:
        return await asked
    except Conflict:
        if (await service.describe(session_id, tenant))["chunks"]["shown"] > index:
            raise
        return None


def _last(news: News, before: str) -> str:
    """The last event of all, or the status that it tells; ``before`` where there is none in ``news``."""
    if not news.events:
        return before
    event = news.events[-1]
    return str(event["session"]["status"] if event["type"] == "state" else event["type"])


async def _hear(service: Service, socket: WebSocket, session_id: str, tenant: str) -> int:
    """Carry out what is asked: {"actions": …, "at": …} or {"finish": true}; its ``ref`` comes back with the answer."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return 0
        asked: dict[str, Any] = {}
        try:
            asked = _read(message)
            service.charge(tenant, len(message.get("text") or message.get("bytes") or b""))
            if asked.get("finish"):
                answer = await service.finish(session_id, tenant)
            else:
                answer = await service.control(session_id, tenant, asked.get("actions"), asked.get("at"))
            reply: dict[str, Any] = {"type": "accepted", **answer}
        except FramelaneError as error:
            reply = _error(error)
        await socket.send_json({**reply, "ref": asked.get("ref")})


def _read(message: Any) -> dict[str, Any]:
    try:
        asked = json.loads(message.get("text") or message.get("bytes") or b"")
        at = asked.get("at")
    except (ValueError, RecursionError, AttributeError) as error:
        raise Refused("the message is not a JSON object", field="message", remedy='send {"actions": "w"}') from error
    if at is not None and (not isinstance(at, int) or isinstance(at, bool) or at < 0):
        raise Refused("not a chunk's number", field="at", remedy="send a whole number, or leave it out")
    return dict(asked)


def _error(error: FramelaneError) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(bytes(of_error(error).body))
    return {"type": "error", **body}

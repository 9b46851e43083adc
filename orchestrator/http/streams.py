"""Streams of a session: its chunks and its events, each a loop with a cursor.

Nothing is queued for a client: the next piece is asked for when the last one has been taken, so a slow client only
comes later. Whoever is cut off comes back with the number of the last event and the next chunk it wants.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from gamecraft_core.base.errors import FramelaneError, StoreUnavailable
from orchestrator.http.answers import of_error
from orchestrator.live.port import SETTLED, Overloaded, Refused, Service

#: A comment goes out after so long without an event: proxies end what is silent.
_SILENCE_S = 15.0
#: WebSocket's codes: normal; "come back", for the service restarts, or is not ready; and one of ours.
_DONE, _RESTARTS, _LATER, _REFUSED = 1000, 1012, 1013, 4000


async def segments(service: Service, session_id: str, tenant: str, first: int) -> AsyncIterator[bytes]:
    """The session's fragmented MP4 from chunk ``first`` on: the init segment, then each chunk once it is there."""
    cursor, index = None, first
    while True:
        news = await service.news(session_id, tenant, cursor)
        cursor = news.cursor
        while index < news.shown:
            if index == first:
                yield (await service.init(session_id, tenant)).data
            yield await service.segment(session_id, tenant, index)
            index += 1
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
    service: Service, socket: WebSocket, session_id: str, tenant: str, after: int | None, first: int
) -> None:
    """Events as text, segments as bytes (announced by a text); controls come in. Until either side has had enough."""
    await socket.accept()
    parts = [
        asyncio.create_task(_tell(service, socket, session_id, tenant, after, first)),
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
    service: Service, socket: WebSocket, session_id: str, tenant: str, after: int | None, first: int
) -> int:
    """Send what there is; the code to close with."""
    index, begun, last = first, False, ""
    while True:
        news = await service.news(session_id, tenant, after)
        after = news.cursor
        for event in news.events:
            await socket.send_json(event)
            last = event["session"]["status"] if event["type"] == "state" else event["type"]
        while index < news.shown:
            if not begun:
                init = await service.init(session_id, tenant)
                await socket.send_json({"type": "init", "codec": init.codec, "bytes": len(init.data)})
                await socket.send_bytes(init.data)
                begun = True
            data = await service.segment(session_id, tenant, index)
            await socket.send_json({"type": "segment", "chunk": index, "bytes": len(data)})
            await socket.send_bytes(data)
            index += 1
        if news.over:
            return _DONE if last in SETTLED else _RESTARTS


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

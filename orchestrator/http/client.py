"""A client of the service, for programs: ``AsyncClient``, and ``Client`` that does the same without an event loop.

    with Client("http://127.0.0.1:8000") as client:
        session = client.create("A quiet harbour.", image="harbour.png", actions="w*3 left_rot")
        for piece in client.watch(session["id"]): ...

A stream that is cut off is taken up again where it was, the service's restarts included; so is what can be repeated
without harm: a control that names its chunk, the wish to finish, the finished video.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gamecraft_core.base.errors import BadInput, FramelaneError

Answer = TypeVar("Answer")

#: What a session begins from.
Start = str | Path | bytes

#: WebSocket's code for a stream that has brought everything.
_DONE = 1000
_SETTLED = ("committed", "failed", "cancelled")
#: What another try may mend; 0: nobody answered.
_COME_AGAIN = (0, 429, 503)
_TIMEOUT_S = 60.0
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.1, 5.0
_MAX_MESSAGE_BYTES = 256 << 20


class ServiceError(FramelaneError):
    """What the service answered instead of a success; ``retry_after`` seconds where another try makes sense."""

    status = 0
    retry_after: float | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Something of a stream: an event, or bytes of the fragmented MP4 (``chunk`` None: the init segment)."""

    event: dict[str, Any] = field(default_factory=dict)
    data: bytes = b""
    chunk: int | None = None


class AsyncClient:
    """Talks to the service at ``url``; ``patience`` seconds is how long it tries again."""

    def __init__(self, url: str, token: str | None = None, *, patience: float = 120.0) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._patience = patience
        self._http = httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=_TIMEOUT_S)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def create(
        self, prompt: str, *, image: Start | None = None, video: Start | None = None, **settings: Any
    ) -> dict[str, Any]:
        """A new session from what its preset begins from; ``settings`` as in the API.

        An image or a video is a file's path, its bytes, or a URI.
        """
        if image is not None and video is not None:
            remedy = "give an image or a video, and not both"
            raise BadInput("a session begins from one start, not 2", field="image", remedy=remedy)
        kind, start = ("image", image) if video is None else ("video", video)
        cells = {"prompt": prompt, **{key: value for key, value in settings.items() if value is not None}}
        if start is None or (isinstance(start, str) and "://" in start):
            return await self._json("POST", "/v1/sessions", json=cells if start is None else {**cells, kind: start})
        data = start if isinstance(start, bytes) else await asyncio.to_thread(Path(start).read_bytes)
        fields = {key: value if isinstance(value, str) else json.dumps(value) for key, value in cells.items()}
        return await self._json("POST", "/v1/sessions", data=fields, files={kind: ("start", data)})

    async def describe(self, session_id: str) -> dict[str, Any]:
        return await self._json("GET", f"/v1/sessions/{session_id}")

    async def sessions(self, after: str = "", limit: int = 20) -> dict[str, Any]:
        return await self._json("GET", "/v1/sessions", params={"after": after, "limit": limit})

    async def control(self, session_id: str, actions: Any, at: int | None = None) -> dict[str, Any]:
        """Go on with ``actions``; with ``at``, the chunk they are meant for, a repetition changes nothing."""
        body = {"actions": actions} | ({"at": at} if at is not None else {})
        return await self._json("POST", f"/v1/sessions/{session_id}/controls", again=at is not None, json=body)

    async def finish(self, session_id: str) -> dict[str, Any]:
        return await self._json("POST", f"/v1/sessions/{session_id}/finish", again=True)

    async def cancel(self, session_id: str) -> dict[str, Any]:
        return await self._json("POST", f"/v1/sessions/{session_id}/cancel")

    async def delete(self, session_id: str) -> None:
        await self._answer("DELETE", f"/v1/sessions/{session_id}")

    async def records(self, session_id: str) -> dict[str, Any]:
        return await self._json("GET", f"/v1/sessions/{session_id}/records")

    async def video(self, session_id: str) -> bytes:
        """The finished mp4."""
        return (await self._answer("GET", f"/v1/sessions/{session_id}/video.mp4", again=True)).content

    async def watch(self, session_id: str, first: int = 0) -> AsyncIterator[Piece]:
        """Events and segments from chunk ``first`` on, until the session is settled. Taken up again where cut off."""
        place = _Place(session_id, first)
        silent_since: float | None = None
        pause, loop = _FIRST_PAUSE_S, asyncio.get_running_loop()
        while True:
            try:
                async with connect(
                    place.address(self._url), additional_headers=self._headers, max_size=_MAX_MESSAGE_BYTES
                ) as socket:
                    silent_since, pause = None, _FIRST_PAUSE_S
                    async for message in socket:
                        if (piece := place.read(message)) is not None:
                            yield piece
                if place.over and socket.close_code == _DONE:
                    return
                cause: Exception | None = None
            except (OSError, ConnectionClosed, InvalidHandshake) as error:
                cause = error  # the session may be settled: there can be chunks of it that have not come yet
            silent_since = loop.time() if silent_since is None else silent_since
            if loop.time() - silent_since > self._patience:
                raise ServiceError(f"the service does not answer: {cause}", remedy="see that it runs") from cause
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_S)

    async def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._answer(method, path, **request)).json()
        return answer

    async def _answer(self, method: str, path: str, *, again: bool = False, **request: Any) -> httpx.Response:
        """What is answered; with ``again``, to the first of several tries that is not told to come again."""
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + self._patience * again, _FIRST_PAUSE_S
        while True:
            try:
                return await self._once(method, path, **request)
            except ServiceError as error:
                wait = max(pause, error.retry_after or 0.0)
                if error.status not in _COME_AGAIN or loop.time() + wait > end:
                    raise
            await asyncio.sleep(wait)
            pause = min(2 * pause, _MOST_PAUSE_S)

    async def _once(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ServiceError(f"the service does not answer: {error!r}", remedy="see that it runs") from error
        if answer.is_success:
            return answer
        raise _error(answer.status_code, answer.json().get("error", {}) if _is_json(answer) else {})


@dataclass(slots=True)
class _Place:
    """Where a stream is: the next chunk, the last event, and what the next bytes are."""

    session_id: str
    next: int
    after: int | None = None
    over: bool = False
    begun: bool = False
    announced: dict[str, Any] = field(default_factory=dict)

    def address(self, url: str) -> str:
        cursor = f"&after={self.after}" if self.after is not None else ""
        return f"ws{url.removeprefix('http')}/v1/sessions/{self.session_id}/stream?from={self.next}{cursor}"

    def read(self, message: str | bytes) -> Piece | None:
        """What ``message`` says to a caller. Raises ServiceError where the service refuses the stream."""
        if isinstance(message, bytes):
            return self._bytes(message)
        content: dict[str, Any] = json.loads(message)
        if content["type"] in ("init", "segment"):
            self.announced = content
            return None
        if content["type"] == "error":
            raise _error(0, content["error"])
        self.after = content.get("seq", self.after)
        status = content["session"]["status"] if content["type"] == "state" else content["type"]
        self.over = self.over or status in _SETTLED
        return Piece(event=content)

    def _bytes(self, data: bytes) -> Piece | None:
        if self.announced["type"] == "segment":
            self.next = self.announced["chunk"] + 1
            return Piece(data=data, chunk=self.announced["chunk"])
        if self.begun:
            return None  # the same init segment, sent again after a break
        self.begun = True
        return Piece(data=data)


class Client:
    """``AsyncClient`` for programs without an event loop: the same calls, each waits."""

    def __init__(self, url: str, token: str | None = None, *, patience: float = 120.0) -> None:
        self._runner = asyncio.Runner()
        self._client = self._wait(_made(url, token, patience))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._wait(self._client.close())
        self._runner.close()

    def create(
        self, prompt: str, *, image: Start | None = None, video: Start | None = None, **settings: Any
    ) -> dict[str, Any]:
        return self._wait(self._client.create(prompt, image=image, video=video, **settings))

    def describe(self, session_id: str) -> dict[str, Any]:
        return self._wait(self._client.describe(session_id))

    def sessions(self, after: str = "", limit: int = 20) -> dict[str, Any]:
        return self._wait(self._client.sessions(after, limit))

    def control(self, session_id: str, actions: Any, at: int | None = None) -> dict[str, Any]:
        return self._wait(self._client.control(session_id, actions, at))

    def finish(self, session_id: str) -> dict[str, Any]:
        return self._wait(self._client.finish(session_id))

    def cancel(self, session_id: str) -> dict[str, Any]:
        return self._wait(self._client.cancel(session_id))

    def delete(self, session_id: str) -> None:
        self._wait(self._client.delete(session_id))

    def records(self, session_id: str) -> dict[str, Any]:
        return self._wait(self._client.records(session_id))

    def video(self, session_id: str) -> bytes:
        return self._wait(self._client.video(session_id))

    def watch(self, session_id: str, first: int = 0) -> Iterator[Piece]:
        pieces = self._client.watch(session_id, first)
        try:
            while (piece := self._wait(anext(pieces, None))) is not None:
                yield piece
        finally:
            self._wait(_closed(pieces))

    def _wait(self, answer: Coroutine[Any, Any, Answer]) -> Answer:
        return self._runner.run(answer)


async def _made(url: str, token: str | None, patience: float) -> AsyncClient:
    return AsyncClient(url, token, patience=patience)


async def _closed(pieces: Any) -> None:
    async with aclosing(pieces):
        pass


def _is_json(answer: httpx.Response) -> bool:
    return bool(answer.headers.get("content-type", "").startswith("application/json"))


def _error(status: int, told: dict[str, Any]) -> ServiceError:
    message = str(told.get("message", f"status {status}"))
    error = ServiceError(message, field=str(told.get("field", "")), remedy=str(told.get("remedy", "")))
    error.status, error.retry_after, error.position = status, told.get("retry_after"), told.get("position")
    return error

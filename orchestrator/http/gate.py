"""The gate before every route: who may come in, from where, and how much they may send.

Invariants: a page of another origin reaches nothing unless that origin was named (browsers send ``Origin`` with every
WebSocket and every changing request, so no cookie or open port on this machine can be misused); a body that is too
long is cut off while it comes, and so is one that would be too much beside those under way; where tokens are in force
nothing but health, the page and its API description is open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from gamecraft_core.base.ids import check_id
from gamecraft_core.media import bounds
from orchestrator.http.answers import Cut, of_error, problem
from orchestrator.live.port import Overloaded, OverQuota, Service

#: Holds a browser's token, percent-encoded: scripts cannot add a header to a WebSocket or to a video's address.
COOKIE = "framelane_token"
#: Who comes without a token where none is needed.
ANYBODY = "default"

#: WebSocket's code for "come back".
_COME_AGAIN = 1012

_OPEN = ("/", "/healthz", "/readyz", "/openapi.json", "/docs")
_PAGE = "/page/"
#: Where sessions begin, and whether they are played.
_BEGINS = {"/v1/sessions": True, "/v1/videos": False}
#: Of one message on a WebSocket, and of a body that begins no session: a camera path's rows at most.
MAX_MESSAGE_BYTES = 4 << 20
#: Seconds after which other bodies will have come and gone.
_RETRY_S = 1.0


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Rules:
    """``tokens``: tenants by their token's digest, None where none is needed. ``hosts``: names it answers to, if any.

    ``origins``: of pages elsewhere that may use it. ``max_socket_bytes``: media that one WebSocket brings, where who
    reads slowly is not held back, but buffered for; who has read that much comes again with a cursor.
    ``max_body_bytes`` is a body's length where sessions begin, ``max_bodies_bytes`` that of all requests at once.
    """

    tokens: Mapping[str, str] | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    max_body_bytes: int = bounds.MAX_IMAGE_BYTES + (1 << 20)
    max_bodies_bytes: int = 512 << 20
    max_socket_bytes: int | None = None
    _open: frozenset[str] = field(default=frozenset(_OPEN))

    def tenant(self, headers: Headers) -> str | None:
        """Who asks; None where that is not known."""
        if self.tokens is None:
            return ANYBODY
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = unquote(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))
        return self.tokens.get(digest(token.strip())) if token else None

    def is_open(self, path: str) -> bool:
        return path in self._open or path.startswith(_PAGE)

    def longest(self, path: str) -> int:
        """Bytes that a body may have."""
        return self.max_body_bytes if path in _BEGINS else min(MAX_MESSAGE_BYTES, self.max_body_bytes)

    def from_elsewhere(self, headers: Headers) -> bool:
        """A page of an origin that was not named asks."""
        origin = headers.get("origin")
        if origin is None or origin in self.origins:
            return False
        return urlsplit(origin).netloc != headers.get("host", "")


def read_tokens(lines: Iterable[str]) -> dict[str, str]:
    """Tenants by their token's digest, from lines of ``TENANT TOKEN``; empty lines and those after # do not count."""
    tokens: dict[str, str] = {}
    for line in lines:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise ValueError("a line is not TENANT TOKEN")
        tokens[digest(words[1])] = check_id(words[0], "tenant")
    return tokens


class Gate:
    """ASGI middleware that holds ``rules``, and leaves the tenant in the scope.

    Who would only be refused for want of room is told so here, before anything else is done for the request. A request
    with a key may be the repetition of one that was let in, so ``Service.create`` looks for that first.
    """

    def __init__(self, app: ASGIApp, rules: Rules, service: Service) -> None:
        self._app = app
        self._rules = rules
        self._service = service
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if scope["type"] == "http":
            with self._counted(scope, receive, headers) as counted:
                await self._app(scope, counted, send)
        else:
            await self._app(scope, receive, self._bounded(send))

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        rules = self._rules
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if rules.hosts and host not in rules.hosts:
            return problem(403, "forbidden", f"this service does not answer to {host[:80]!r}", remedy="use its address")
        if rules.from_elsewhere(headers):
            remedy = "let the operator name the page's origin (--origin)"
            return problem(403, "forbidden", "a page of another origin asks", remedy=remedy)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > (most := rules.longest(scope["path"])):
            return _too_long(most)
        tenant = rules.tenant(headers)
        if tenant is None and not rules.is_open(scope["path"]):
            answer = problem(401, "unauthorized", "there is no token, or it is not known", remedy="send Bearer TOKEN")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        scope["tenant"] = tenant or ANYBODY
        begins = scope["path"] in _BEGINS and scope["type"] == "http" and scope["method"] == "POST"
        if begins and not headers.get("idempotency-key"):
            try:
                self._service.check_room(scope["tenant"], played=_BEGINS[scope["path"]])
            except Overloaded as error:
                return of_error(error)
        return None

    @contextmanager
    def _counted(self, scope: Scope, receive: Receive, headers: Headers) -> Iterator[Receive]:
        """A ``receive`` that cuts a body off where it, or all bodies of requests under way, are too long.

        What comes is held until the request ends, and charged when it is read: all that was announced at once, else
        piece by piece.
        """
        most, come = self._rules.longest(scope["path"]), 0
        length = headers.get("content-length", "")
        announced = due = int(length) if length.isdigit() else 0

        async def counted() -> Message:
            nonlocal come, due
            self._charge(scope["tenant"], due)
            due = 0
            message = await receive()
            size = len(message.get("body", b""))
            if come + size > most:
                raise Cut(_too_long(most))
            if size and self._held + size > self._rules.max_bodies_bytes:
                raise Cut(of_error(Overloaded("too much is sent at once", field="body", retry_after=_RETRY_S)))
            come += size
            self._held += size
            if not announced:
                self._charge(scope["tenant"], size)
            return message

        try:
            yield counted
        finally:
            self._held -= come

    def _bounded(self, send: Send) -> Send:
        """A socket's ``send`` that ends it when it has brought what one may."""
        most, left = self._rules.max_socket_bytes, self._rules.max_socket_bytes or 0

        async def bounded(message: Message) -> None:
            nonlocal left
            media = len(message.get("bytes") or b"")
            if most is not None and media and left <= 0:
                await send({"type": "websocket.close", "code": _COME_AGAIN})
                raise WebSocketDisconnect(_COME_AGAIN)
            left -= media
            await send(message)

        return bounded

    def _charge(self, tenant: str, size: int) -> None:
        try:
            self._service.charge(tenant, size)
        except OverQuota as error:
            raise Cut(of_error(error)) from error


def _too_long(most: int) -> JSONResponse:
    return problem(413, "too_large", f"the body is longer than {most} bytes", remedy="send a smaller file")

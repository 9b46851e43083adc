"""``/v1/sessions``: begin a world, walk through it, watch it, keep it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, WebSocket
from starlette.responses import JSONResponse, StreamingResponse

from orchestrator.http import downloads, streams
from orchestrator.http.answers import FILE, answers
from orchestrator.http.bodies import ControlsRequest, Key, SessionRequest, asked, description
from orchestrator.live.port import SETTLED, Service

#: More than any version of the standard has.
_MOST_LETTERS = 255

_MP4 = {"description": "fragmented MP4", "content": {"video/mp4": {}}}
_SSE = {"description": "server-sent events", "content": {"text/event-stream": {}}}

#: A number that a feed or a session can have, and a JSON number can hold.
Cursor = Annotated[int | None, Query(ge=0, lt=2**53, description="number of the last event that was seen")]
First = Annotated[int, Query(alias="from", ge=0, lt=2**31, description="the first chunk to be sent")]


def routes(service: Service) -> APIRouter:
    """The routes on ``service``."""
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.post(
        "",
        status_code=201,
        summary="Begin a session",
        responses={202: {"description": "accepted: it waits in the queue"}, **answers(409, 413, 422, 429, 503)},
        openapi_extra=description(SessionRequest, "image", "video"),
    )
    async def create(request: Request, key: Key = "") -> JSONResponse:
        cells, upload = await asked(request, {"image": "image", "video": "video"})
        session = await service.create(cells, tenant(request), upload, key=key, traceparent=traceparent(request))
        status = 202 if session["status"] == "queued" else 201
        return JSONResponse(session, status, {"Location": f"/v1/sessions/{session['id']}"})

    @router.get("", summary="Sessions in the order of their creation", responses=answers(422, 503))
    async def listing(
        request: Request,
        after: Annotated[str, Query(max_length=128)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        found = await service.listing(tenant(request), after, limit)
        return {"sessions": found, "after": found[-1]["id"] if len(found) == limit else None}

    @router.get("/{session_id}", summary="How a session is", responses=answers(404, 422, 503))
    async def describe(request: Request, session_id: str) -> dict[str, Any]:
        return await service.describe(session_id, tenant(request))

    @router.delete("/{session_id}", status_code=204, summary="Cancel and forget", responses=answers(404, 409, 422, 503))
    async def delete(request: Request, session_id: str) -> Response:
        await service.delete(session_id, tenant(request))
        return Response(status_code=204)

    @router.post(
        "/{session_id}/controls",
        status_code=202,
        summary="What to do next",
        responses=answers(404, 409, 413, 422, 429, 503),
    )
    async def control(request: Request, session_id: str, body: ControlsRequest) -> dict[str, Any]:
        return await service.control(session_id, tenant(request), body.actions, body.at)

    @router.post(
        "/{session_id}/finish",
        status_code=202,
        summary="No more controls: make the mp4 and its records",
        responses=answers(404, 409, 422, 503),
    )
    async def finish(request: Request, session_id: str) -> dict[str, Any]:
        return await service.finish(session_id, tenant(request))

    @router.post("/{session_id}/cancel", summary="Stop, and keep nothing", responses=answers(404, 409, 422, 503))
    async def cancel(request: Request, session_id: str) -> dict[str, Any]:
        return await service.cancel(session_id, tenant(request))

    _watching(router, service)
    return router


def _watching(router: APIRouter, service: Service) -> None:
    @router.get(
        "/{session_id}/events",
        summary="Its events as they come; Last-Event-ID works too",
        response_class=Response,
        responses={200: _SSE, 204: {"description": "it is over, and all was told"}, **answers(404, 422, 503)},
    )
    async def events(request: Request, session_id: str, after: Cursor = None) -> Response:
        session = await service.describe(session_id, tenant(request))
        last = request.headers.get("last-event-id", "")
        cursor = int(last) if after is None and last.isascii() and last.isdigit() and len(last) < 17 else after
        if session["status"] in SETTLED and cursor is not None:
            news = await service.news(session_id, tenant(request), cursor)
            if not news.events:
                return Response(status_code=204)  # which a browser takes for the end, and asks no more
        told = streams.server_sent(service, session_id, tenant(request), cursor)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(told, headers=headers, media_type="text/event-stream")

    @router.get(
        "/{session_id}/stream.mp4",
        summary="Its chunks as they come, as one mp4",
        response_class=Response,
        responses={200: _MP4, **answers(404, 422, 503)},
    )
    async def stream(request: Request, session_id: str, first: First = 0) -> Response:
        await service.describe(session_id, tenant(request))
        pieces = streams.segments(service, session_id, tenant(request), first)
        return streams.Cuttable(pieces, headers={"Cache-Control": "no-store"}, media_type="video/mp4")

    pictures = streams.Pictures(service)

    @router.websocket("/{session_id}/stream")
    async def socket(
        websocket: WebSocket, session_id: str, after: Cursor = None, first: First = 0, media: streams.Media = "mp4"
    ) -> None:
        wish = streams.Wish(after, first, media)
        await streams.socket(service, pictures, websocket, session_id, websocket.scope["tenant"], wish)

    @router.get(
        "/{session_id}/video.mp4",
        summary="The finished video",
        response_class=Response,
        responses={**FILE, **answers(404, 409, 422, 503)},
    )
    async def video(request: Request, session_id: str) -> Response:
        return await downloads.video(service, request, session_id, tenant(request))

    @router.get("/{session_id}/records", summary="The finished video's record", responses=answers(404, 409, 422, 503))
    async def records(request: Request, session_id: str) -> dict[str, Any]:
        return await service.records(session_id, tenant(request))


def tenant(request: Request) -> str:
    """Whose token it is, as the gate found."""
    return str(request.scope["tenant"])


def traceparent(request: Request) -> str:
    """Where its caller's trace is, as W3C writes it; what is malformed begins a trace of its own."""
    return request.headers.get("traceparent", "")[:_MOST_LETTERS]

"""The web application: routes on a service, behind the gate. A plain ASGI app, for any server that takes one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from gamecraft_core.base.version import VERSION
from orchestrator.http import sessions, videos
from orchestrator.http.answers import answers, install, problem
from orchestrator.http.gate import Gate, Rules
from orchestrator.http.sessions import tenant
from orchestrator.live.port import Service

Minutes = Annotated[float, Query(gt=0, le=60, description="how far back it goes, as far as it is remembered")]

_PAGE = Path(__file__).with_name("page")

#: The page loads nothing from elsewhere, and nobody frames it.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
)

#: Headers of the API that browsers do not let a page of another origin send, or read, by themselves.
_SENT = {"Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Range", "Traceparent"}
_ANSWERED = {"Accept-Ranges", "Allow", "Content-Disposition", "Content-Range", "ETag", "Location", "Retry-After"}


def build(
    service: Service,
    rules: Rules,
    *,
    starts: Path | None = None,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> ASGIApp:
    """The app; whatever it is asked goes through ``rules`` first. ``lifespan`` runs as long as its server.

    ``starts`` is a folder of pictures that the page offers to begin from, with a ``manifest.jsonl``.
    """
    app = FastAPI(
        title="Framelane",
        version=VERSION,
        summary="Walk through a world while it is made, chunk by chunk.",
        docs_url=None,
        redirect_slashes=False,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
    )
    install(app)
    app.include_router(sessions.routes(service))
    app.include_router(videos.routes(service))
    app.include_router(_health(service))
    app.include_router(_page(starts))
    if starts is not None:
        app.mount("/page/starts", StaticFiles(directory=starts), name="starts")
    app.mount("/page", StaticFiles(directory=_PAGE), name="page")
    gated: ASGIApp = Gate(app, rules, service)
    if rules.origins:
        gated = CORSMiddleware(
            gated,
            allow_origins=sorted(rules.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=sorted(_SENT),
            expose_headers=sorted(_ANSWERED),
        )
    return gated


def _health(service: Service) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="The process answers")
    async def healthz() -> dict[str, Any]:
        return {"status": "alive"}

    @router.get("/readyz", summary="The lanes are warm", responses=answers(503))
    async def readyz() -> JSONResponse:
        state = service.state()
        if state == "ready":
            return JSONResponse({"status": "ready"})
        return problem(503, "not_ready", f"the service is {state}", remedy="come again", retry_after=1.0)

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/presets", summary="What is served: how sessions begin, and how long they are", tags=["sessions"])
    async def presets() -> dict[str, Any]:
        return {"presets": service.catalogue()}

    @router.get(
        "/v1/timeline",
        summary="What lanes did in the last minutes, as a trace that Perfetto opens",
        response_class=Response,
        responses={200: {"description": "trace events", "content": {"application/json": {}}}, **answers(422)},
    )
    async def timeline(request: Request, minutes: Minutes = 5.0) -> Response:
        drawn = await asyncio.to_thread(service.timeline, tenant(request), 60.0 * minutes)
        headers = {"Content-Disposition": 'attachment; filename="timeline.json"', "Cache-Control": "no-store"}
        return Response(drawn, headers=headers, media_type="application/json")

    return router


def _page(starts: Path | None) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    offered = _offered(starts) if starts is not None else []

    @router.get("/")
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", headers={"Content-Security-Policy": _POLICY})

    @router.get("/docs")
    async def docs() -> FileResponse:
        return FileResponse(_PAGE / "docs.html", headers={"Content-Security-Policy": _POLICY})

    @router.get("/page/starts.json")
    async def listed() -> list[dict[str, str]]:
        return offered

    return router


def _offered(starts: Path) -> list[dict[str, str]]:
    """Pictures and prompts of the manifest in ``starts``."""
    rows = map(json.loads, (starts / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    return [{"image": f"/page/starts/{row['image']}", "prompt": row["prompt"]} for row in rows if "image" in row]

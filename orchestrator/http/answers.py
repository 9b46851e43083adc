"""What the API answers when something is wrong: one shape for everything, with the field and the remedy.

{"error": {"type": …, "message": …, "field": …, "remedy": …, "problems": [{"field", "reason", "remedy"}, …]}}
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match

from gamecraft_core.base.errors import BadInput, FramelaneError, StoreUnavailable
from gamecraft_core.base.logs import about
from orchestrator.live.port import Conflict, NoSuchSession, NotReady, Overloaded, OverQuota, Refused

log = logging.getLogger("framelane.http")


class Problem(BaseModel):
    """One thing that is wrong with a request."""

    field: str
    reason: str
    remedy: str


class ErrorBody(BaseModel):
    """What went wrong. ``position`` and ``retry_after`` come with 429 and 503."""

    type: str
    message: str
    field: str = ""
    remedy: str = ""
    problems: list[Problem] = []
    position: int | None = None
    retry_after: float | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


_TEXTS = {
    401: "no token, or an unknown one",
    403: "a page of another origin",
    404: "no such session",
    409: "not in this state",
    413: "the body is too long",
    422: "the request is wrong; every problem is listed",
    429: "no room, or more than the caller may have: come again",
    503: "not ready, or the store is away: come again",
}

_WRONG_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


#: Of a route that sends a stored file: see ``downloads``.
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "the video", "content": {"video/mp4": {}}},
    206: {"description": "the range that was asked for", "content": {"video/mp4": {}}},
    304: {"description": "it is still what If-None-Match names"},
    416: {"description": "it is shorter"},
}


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For the API's description: what a route may answer beside its success. 401 and 403 are everybody's."""
    return {code: {"description": _TEXTS[code], "model": ErrorAnswer} for code in (401, 403, *codes)}


def problem(
    status: int,
    kind: str,
    message: str,
    *,
    field: str = "",
    remedy: str = "",
    problems: Sequence[Problem] = (),
    retry_after: float | None = None,
    position: int | None = None,
) -> JSONResponse:
    body = ErrorBody(
        type=kind,
        message=message,
        field=field,
        remedy=remedy,
        problems=list(problems),
        position=position,
        retry_after=retry_after,
    )
    headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
    return JSONResponse({"error": body.model_dump(exclude_none=True)}, status, headers)


def of_error(error: FramelaneError) -> JSONResponse:
    """``error`` as an answer."""
    told: dict[str, Any] = {"field": error.field, "remedy": error.remedy}
    match error:
        case NotReady():
            return problem(503, "not_ready", error.message, retry_after=error.retry_after, **told)
        case OverQuota():
            return problem(429, "over_quota", error.message, retry_after=error.retry_after, **told)
        case Overloaded():
            told |= {"retry_after": error.retry_after, "position": error.position}
            return problem(429, "overloaded", error.message, **told)
        case NoSuchSession():
            return problem(404, "not_found", error.message, **told)
        case Conflict():
            return problem(409, "conflict", error.message, **told)
        case Refused():
            listed = [Problem(field=name, reason=reason, remedy=remedy) for name, reason, remedy in error.problems]
            return problem(422, "invalid", error.message, problems=listed, **told)
        case BadInput():
            return problem(422, "invalid", error.message, **told)
        case StoreUnavailable():
            return problem(503, "store_away", error.message, retry_after=5.0, **told)
        case _:
            log.error("a request failed: %s", error)
            return problem(500, "failed", error.message, **told)


class Cut(HTTPException):
    """What is raised while a body comes: the framework would take any other error for a body that it cannot read."""

    def __init__(self, answer: JSONResponse) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


def install(app: FastAPI) -> None:
    """Let every error of ``app`` leave in this shape."""

    @app.exception_handler(FramelaneError)
    async def ours(request: Request, error: FramelaneError) -> JSONResponse:
        named = request.path_params
        with about(tenant=request.scope.get("tenant"), session=named.get("session_id", named.get("video_id"))):
            return of_error(error)

    @app.exception_handler(RequestValidationError)
    async def misread(_: Request, error: RequestValidationError) -> JSONResponse:
        listed = [
            Problem(field=".".join(map(str, each["loc"][1:])), reason=each["msg"], remedy="see /openapi.json")
            for each in error.errors()
        ]
        first = listed[0]
        return problem(422, "invalid", first.reason, field=first.field, remedy=first.remedy, problems=listed)

    @app.exception_handler(HTTPException)
    async def of_framework(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Cut):
            return error.answer
        status = 422 if error.status_code == 400 else error.status_code  # a body that cannot be parsed: one status
        kind = _WRONG_STATUS.get(status, "invalid")
        answer = problem(status, kind, str(error.detail), remedy="see /openapi.json")
        answer.headers.update(error.headers or {})
        if "Allow" in answer.headers:
            answer.headers["Allow"] = ", ".join(_methods(app, request))
        return answer


def _methods(app: FastAPI, request: Request) -> list[str]:
    """All that the path takes: every route knows only its own."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in app.routes)

    return [method for method in ("DELETE", "GET", "POST") if taken(method)]

"""``/v1/videos`` in the shape that the field's clients know: create, poll, fetch the content.

A video is a session that gets no more controls than it has when it begins: by default it walks on for ``seconds``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from orchestrator.http import downloads
from orchestrator.http.answers import FILE, answers
from orchestrator.http.bodies import Actions, Key, asked, description
from orchestrator.http.sessions import tenant, traceparent
from orchestrator.live.port import Conflict, Refused, Service, Upload
from orchestrator.manifest.fields import as_number, shown

_STATUS = {
    "queued": "queued",
    "running": "in_progress",
    "resting": "in_progress",
    "committed": "completed",
    "failed": "failed",
    "cancelled": "failed",
}
_MAX_SECONDS = 3600.0


class VideoRequest(BaseModel):
    """A new video. ``actions`` is ours: without it the camera walks on, where there is one."""

    prompt: str
    input_reference: str | None = Field(None, description="the start image: upload it, or data:image/png;base64,…")
    model: str | None = Field(None, description="a preset's name")
    seconds: str | float | None = Field(None, description="length; the nearest that the model can make")
    size: str | None = Field(None, description="WIDTHxHEIGHT, multiples of 16")
    actions: Actions | None = None
    seed: int | None = None


def routes(service: Service) -> APIRouter:
    """The routes on ``service``."""
    router = APIRouter(prefix="/v1/videos", tags=["videos"])

    @router.post(
        "",
        summary="Ask for a video",
        responses=answers(409, 413, 422, 429, 503),
        openapi_extra=description(VideoRequest, "input_reference"),
    )
    async def create(request: Request, key: Key = "") -> dict[str, Any]:
        given, upload = await asked(request, {"input_reference": "image"})
        cells, whose, trace = _cells(given, service), tenant(request), traceparent(request)
        try:
            return _video(await service.create(cells, whose, upload, played=False, key=key, traceparent=trace))
        except (Conflict, Refused) as error:
            raise _by_our_names(error, given, upload) from error

    @router.get("", summary="Videos in the order of their creation", responses=answers(422, 503))
    async def listing(
        request: Request,
        after: Annotated[str, Query(max_length=128)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "asc",
    ) -> dict[str, Any]:
        found = await service.listing(tenant(request), after, limit + 1, played=False, newest_first=order == "desc")
        data = [_video(session) for session in found[:limit]]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return {"object": "list", "data": data, **ends, "has_more": len(found) > limit}

    @router.get("/{video_id}", summary="How far it is", responses=answers(404, 422, 503))
    async def describe(request: Request, video_id: str) -> dict[str, Any]:
        return _video(await service.describe(video_id, tenant(request)))

    @router.get(
        "/{video_id}/content",
        summary="The mp4",
        response_class=Response,
        responses={**FILE, **answers(404, 409, 422, 503)},
    )
    async def content(request: Request, video_id: str, variant: str = "video") -> Response:
        if variant != "video":
            raise Conflict(f"there is no {shown(variant)} of a video", field="variant", remedy="ask for video")
        return await downloads.video(service, request, video_id, tenant(request))

    @router.delete("/{video_id}", summary="Cancel and forget", responses=answers(404, 409, 422, 503))
    async def delete(request: Request, video_id: str) -> dict[str, Any]:
        await service.delete(video_id, tenant(request))
        return {"id": video_id, "object": "video.deleted", "deleted": True}

    return router


def _cells(given: dict[str, Any], service: Service) -> dict[str, Any]:
    """A session's fields."""
    cells = {key: value for key, value in given.items() if value is not None}
    size, seconds, model = cells.pop("size", None), cells.pop("seconds", None), cells.pop("model", None)
    if size is not None:
        width, times, height = str(size).partition("x")
        if not (times and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
            raise Refused(f"{shown(size)} is not a size", field="size", remedy="write WIDTHxHEIGHT, as in 1216x704")
        cells |= {"width": width, "height": height}
    if model is not None:
        cells["preset"] = model
    lasting = service.lasting(str(model or ""), _seconds(seconds))
    return lasting | cells


def _by_our_names(error: Conflict | Refused, given: dict[str, Any], upload: Upload | None) -> Conflict | Refused:
    """``error`` in the names that the caller knows."""

    def ours(field: str, reason: str, remedy: str) -> tuple[str, str, str]:
        if field == "image" and upload is None:
            return "input_reference", "a video starts from an image", "upload an image as input_reference"
        if field == "image":
            return "input_reference", reason, remedy
        if field in ("actions", "frames") and field not in given and "seconds" in given:
            return "seconds", f"{given['seconds']} s: {reason}", f"ask for other seconds; of {field}: {remedy}"
        return field, reason, remedy

    if isinstance(error, Refused):
        return Refused.of([ours(*each) for each in error.problems])
    field, reason, remedy = ours(error.field, error.message, error.remedy)
    return Conflict(reason, field=field, remedy=remedy)


def _seconds(given: Any) -> float | None:
    length = None if given is None else as_number(given)
    if given is not None and (length is None or not 0 < length <= _MAX_SECONDS):
        remedy = f"give a number up to {_MAX_SECONDS:g}"
        raise Refused(f"{shown(given)} are not seconds", field="seconds", remedy=remedy)
    return length


def _video(session: dict[str, Any]) -> dict[str, Any]:
    """A session as these clients know it."""
    chunks, error = session["chunks"], session["error"]
    made = max(chunks["shown"], chunks["durable"])  # where the end is made first nothing is shown for long
    done = session["status"] == "committed"
    seconds = session["frames"] / session["fps"]
    if session["status"] == "cancelled":
        error = {"field": "cancelled", "reason": "it was called off"}
    return {
        "id": session["id"],
        "object": "video",
        "created_at": int(session["created_at"]),
        "status": _STATUS[session["status"]],
        "model": session["preset"],
        "prompt": session["prompt"],
        "progress": 100 if done else 99 * made // max(1, chunks["asked"]),
        "seconds": f"{seconds:g}",
        "size": f"{session['width']}x{session['height']}",
        "error": error and {"code": error["field"] or "failed", "message": error["reason"]},
        "completed_at": None,
        "expires_at": None,
        "remixed_from_video_id": None,
    }

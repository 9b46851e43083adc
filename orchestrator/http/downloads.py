"""A stored file over HTTP: whole or one range of it, read from the store piece by piece as the client takes it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.http.answers import problem
from orchestrator.live.port import Service

_PIECE = 1 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


def wanted(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte, and the one after the last, that a Range header asks for; None where no byte can be meant.

    What is not one plain range is answered with everything, as RFC 9110 allows.
    """
    match = _RANGE.match(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return 0, size
    return (start, end) if start < end else None


async def video(service: Service, request: Request, session_id: str, tenant: str) -> Response:
    """The finished mp4, or the range that is asked for."""
    size, version = await service.video(session_id, tenant)
    tag = f'"{session_id}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    span = wanted(request.headers.get("range"), size)
    if span is None:
        answer = problem(416, "range", f"the video has {size} bytes", remedy="ask for less")
        answer.headers["Content-Range"] = f"bytes */{size}"
        return answer
    start, end = span
    headers = {"Content-Length": str(end - start), "Accept-Ranges": "bytes", "ETag": tag, "Cache-Control": "private"}
    headers["Content-Disposition"] = f'inline; filename="{session_id}.mp4"'
    partial = (start, end) != (0, size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(start, end, _PIECE):
            yield await service.video_bytes(session_id, tenant, at, min(at + _PIECE, end), version)

    return StreamingResponse(pieces(), 206 if partial else 200, headers, media_type="video/mp4")

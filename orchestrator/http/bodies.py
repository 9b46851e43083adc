"""Bodies of requests: JSON, or a form with a file; and what the API's description says of them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.requests import Request

from orchestrator.live.port import Refused, Upload

_MAX_FIELDS = 40
#: Letters of base64 that are decoded at once: whole groups of four.
_PIECE = 1 << 20

#: One control as callers write it; see ``orchestrator.manifest.actions`` for the shorthand.
Actions = str | list[dict[str, Any]]

#: Repeats a request that may have arrived already.
Key = Annotated[
    str,
    Header(alias="Idempotency-Key", max_length=255, description="repeated with it, a request begins no second session"),
]


class SessionRequest(BaseModel):
    """A new session. What is left out is the preset's."""

    model_config = ConfigDict(extra="forbid")

    image: str | None = Field(
        None, description="to start from, where the preset does: a URI, or data:image/png;base64,…; or upload it"
    )
    video: str | None = Field(None, description="to start from instead: its last frames are the history")
    prompt: str = Field(description="what the world looks like")
    negative_prompt: str | None = None
    actions: Actions | None = Field(None, description='controls to begin with: "w*3 left_rot:1.5", or a list')
    preset: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    shift: float | None = None
    height: int | None = None
    width: int | None = None
    chunk_frames: int | None = None
    frames: int | None = Field(None, description="of presets that make a whole video at once: 4n+1")
    seconds: float | None = Field(None, description="of presets that make a long video section by section")
    embedded_guidance: float | None = None


class ControlsRequest(BaseModel):
    """What to do next, one control a chunk."""

    model_config = ConfigDict(extra="forbid")

    actions: Actions = Field(
        description='"w:0.2*3 w+left_rot:1.5", or a list of {"action", "speed"}, {"keys", "mouse"} and {"poses"}; '
        "poses: a URI, or the rows themselves as text"
    )
    at: int | None = Field(None, ge=0, description="the chunk that the first is meant for: makes a repetition harmless")


def description(model: type[BaseModel], *files: str) -> dict[str, Any]:
    """For the API's description: ``model`` as JSON, or as a form in which one of ``files`` is an upload."""
    schema = model.model_json_schema()
    uploads = {
        name: {"type": "string", "format": "binary", "description": schema["properties"][name]["description"]}
        for name in files
    }
    form = {**schema, "properties": {**schema["properties"], **uploads}}
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


async def asked(
    request: Request, files: Mapping[str, Literal["image", "video"]]
) -> tuple[dict[str, Any], Upload | None]:
    """The fields of a request and the file that came along; ``files`` names the fields that may be one."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _form(request, files)
    return await asyncio.to_thread(_json, await request.body(), files)


def _json(body: bytes, files: Mapping[str, Literal["image", "video"]]) -> tuple[dict[str, Any], Upload | None]:
    """Large ones take long: not on the event loop."""
    try:
        cells = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {error}", field="body", remedy="send JSON or a form") from error
    if not isinstance(cells, dict):
        raise Refused("the body is not an object", field="body", remedy='send {"prompt": …}')
    upload = None
    for name, what in files.items():
        if upload is None and isinstance(value := cells.get(name), str) and value.startswith("data:"):
            upload = Upload(what, _inline(value, name))
            del cells[name]
    return cells, upload


async def _form(
    request: Request, files: Mapping[str, Literal["image", "video"]]
) -> tuple[dict[str, Any], Upload | None]:
    cells: dict[str, Any] = {}
    upload = None
    async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                cells[name] = value
            elif name in files:
                upload = Upload(files[name], await value.read())
            else:
                remedy = f"name the file {' or '.join(files)}"
                raise Refused("a file is not expected here", field=name, remedy=remedy)
    return cells, upload


def _inline(value: str, field: str) -> bytes:
    head, comma, data = value.partition(",")
    if not comma or not head.endswith(";base64"):
        raise Refused("not a base64 data URI", field=field, remedy="send data:image/png;base64,…")
    try:
        # piece by piece: no other thread runs while one is decoded
        return b"".join(base64.b64decode(data[at : at + _PIECE], validate=True) for at in range(0, len(data), _PIECE))
    except (binascii.Error, ValueError) as error:
        raise Refused(f"not base64: {error}", field=field, remedy="encode the file again") from error

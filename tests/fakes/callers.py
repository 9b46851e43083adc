"""What callers do to a studio, under a virtual clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.live.port import Upload
from tests.fakes import virtual_time
from tests.fakes.studio import Studio, picture

ME = "me"
ASKED = {"prompt": "a quiet harbour"}


def run(studio: Studio, play: Callable[[Studio], Awaitable[None]]) -> None:
    """``play`` on ``studio``, which is started before and stopped after."""

    async def main() -> None:
        await studio.start()
        await play(studio)
        await studio.stop()

    virtual_time.run(main())


async def begin(studio: Studio, actions: str | None = None, tenant: str = ME, **changes: Any) -> str:
    cells = {**ASKED, **({"actions": actions} if actions else {}), **changes}
    return str((await studio.service.create(cells, tenant, Upload("image", picture())))["id"])


async def until(studio: Studio, session_id: str, kind: str, tenant: str = ME) -> list[dict[str, Any]]:
    """All events from now until the first of ``kind``."""
    heard: list[dict[str, Any]] = []
    cursor: int | None = None
    while True:
        news = await studio.service.news(session_id, tenant, cursor)
        cursor = news.cursor
        for event in news.events:
            heard.append(event)
            if event["type"] == kind:
                return heard
        assert not news.over, f"it ended without {kind}: {heard}"


async def film(studio: Studio, session_id: str) -> bytes:
    size, version = await studio.service.video(session_id, ME)
    return await studio.service.video_bytes(session_id, ME, 0, size, version)

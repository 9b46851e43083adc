"""``/v1/videos`` as a public client sees it: the ``openai`` package, unmodified, pointed at a real web server."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gamecraft_core.media.fragment import probe
from tests.fakes.studio import picture
from tests.fakes.web import Web, begun

#: Its makers have announced the end of their own service; what the package sends stays what it is.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

PICTURE = ("start.png", picture(), "image/png")


@pytest.fixture
def ours(web: Web) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_a_video_is_made_polled_fetched_listed_and_deleted(ours: openai.OpenAI, tmp_path: Path) -> None:
    start, end = tmp_path / "harbour.png", tmp_path / "harbour.mp4"
    start.write_bytes(picture())
    video = ours.videos.create_and_poll(
        prompt="A harbour.", input_reference=start, model="tiny-gamecraft", seconds="4", poll_interval_ms=20
    )
    assert (video.object, video.status, video.progress, video.error) == ("video", "completed", 100, None)
    assert (video.model, video.prompt, video.seconds, video.size) == ("tiny-gamecraft", "A harbour.", "3.96", "48x32")
    assert ours.videos.retrieve(video.id) == video
    ours.videos.download_content(video.id).write_to_file(end)
    facts = probe(end.read_bytes())
    assert (facts.frames, facts.fps, facts.monotonic) == (99, Fraction(25), True)
    assert video.id in [each.id for each in ours.videos.list()]
    deleted = ours.videos.delete(video.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (video.id, True, "video.deleted")
    with pytest.raises(openai.NotFoundError):
        ours.videos.retrieve(video.id)


def test_what_only_we_have_goes_along(ours: openai.OpenAI, http: httpx.Client) -> None:
    more = {"actions": "w left_rot:1.5", "seed": 5}
    video = ours.videos.create(prompt="A harbour.", input_reference=PICTURE, extra_body=more)
    assert ours.videos.poll(video.id, poll_interval_ms=20).seconds == "2.64"
    assert http.get(f"/v1/sessions/{video.id}").json()["seed"] == 5


def test_pages_of_the_list_hold_videos_only_in_either_order(ours: openai.OpenAI, http: httpx.Client) -> None:
    made: list[Any] = []
    for number in range(5):
        begun(http, actions="w")
        made.append(ours.videos.create(prompt=f"number {number}", input_reference=PICTURE).id)
    for order in ("asc", "desc"):
        listed = [each.id for each in ours.videos.list(limit=2, order=order)]
        wanted = made if order == "asc" else made[::-1]
        assert [name for name in listed if name in made] == wanted
    page = ours.videos.list(limit=1, order="desc")
    assert ([each.id for each in page.data], page.has_more) == ([made[-1]], True)


def test_errors_are_the_clients_own(ours: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        ours.videos.create(prompt="x", input_reference=PICTURE, model="sora-2")
    assert "sora-2" in refused.value.message
    assert refused.value.type == "invalid"
    with pytest.raises(openai.UnprocessableEntityError, match="starts from an image"):
        ours.videos.create(prompt="x")
    video = ours.videos.create(prompt="x", input_reference=PICTURE, seconds="12")
    with pytest.raises(openai.ConflictError):
        ours.videos.download_content(video.id, variant="thumbnail")

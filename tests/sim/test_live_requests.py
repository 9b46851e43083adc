"""What callers may ask of the service, and how it says no."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gamecraft_core.base.spec import Control, SessionSpec
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import layout
from orchestrator.live.desk import Desk
from orchestrator.live.port import NotReady, Refused, Upload
from tests.fakes import virtual_time
from tests.fakes.callers import ASKED, ME, begin, run, until
from tests.fakes.studio import Studio, picture, preset


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid4().hex}")


def pose_rows(focal: float) -> str:
    """A camera that stands, for one chunk."""
    return f"{' '.join(map(str, [0, focal, 0.9, 0.5, 0.5, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.1]))}\n" * 33


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"steps": 0}, "steps"),
        ({"actions": "w fly"}, "actions[1].action"),
        ({"image": "/etc/passwd"}, "image"),
        ({"image": "file:///etc/passwd"}, "image"),
        ({"image": "s3://somebodys/picture.png"}, "image"),
        ({"tenant": "other"}, "tenant"),
        ({"priority": "interactive"}, "priority"),
        ({"session_id": "mine"}, "session_id"),
        ({"actions": [{"poses": "/etc/passwd"}]}, "actions[0].poses"),
        ({"actions": [{"poses": "s3://somebodys/path.txt"}]}, "actions[0].poses"),
    ],
)
def test_what_is_wrong_names_field_and_remedy(store: Store, changes: dict[str, Any], field: str) -> None:
    async def play(studio: Studio) -> None:
        upload = None if "image" in changes else Upload("image", picture())
        with pytest.raises(Refused) as refused:
            await studio.service.create({**ASKED, **changes}, ME, upload)
        assert field in [name for name, _, _ in refused.value.problems]
        assert all(remedy for _, _, remedy in refused.value.problems)

    run(Studio(store), play)


def test_only_what_was_sent_can_be_named_not_what_lies_near_it(tmp_path: Path) -> None:
    kept = open_store(str(tmp_path / "out"))
    (tmp_path / "secret.png").write_bytes(picture())

    async def play(studio: Studio) -> None:
        await begin(studio)
        (sent,) = kept.list(layout.INPUTS)
        assert await studio.service.create({**ASKED, "image": kept.uri(sent)}, ME)
        for near in ("../../secret.png", f"{sent.partition('/')[2]}/../../../secret.png"):
            with pytest.raises(Refused, match="cannot be named"):
                await studio.service.create({**ASKED, "image": f"{kept.uri(layout.INPUTS)}/{near}"}, ME)

    run(Studio(kept), play)


@pytest.mark.parametrize("named", ["memory://{}/picture.png", "picture.png"])
def test_objects_are_named_only_in_buckets_that_the_operator_named(store: Store, named: str) -> None:
    store.put("picture.png", picture())
    bucket = store.root.removeprefix("memory://")
    cells = {**ASKED, "image": named.format(bucket)}

    def asked(**access: Any) -> SessionSpec:
        desk = Desk({"tiny-gamecraft": preset()}, "tiny-gamecraft", store, {"access": access})
        return desk.spec(cells, "a", ME, "interactive", None, True)

    for access in ({}, {"roots": ["/"]}):
        with pytest.raises(Refused, match="no bucket") as refused:
            asked(**access)
        assert refused.value.field == "image"
        assert "store.access.buckets" in refused.value.remedy
    with pytest.raises(Refused, match="not among those"):
        asked(buckets=["another"])
    assert asked(buckets=[bucket]).start.uri == store.uri("picture.png")


def test_what_is_named_is_looked_at_anew_for_every_request(store: Store) -> None:
    """A file that was not there is found later, and a camera path that has changed is another one."""
    presets = {"tiny-gamecraft": preset()}
    desk = Desk(presets, "tiny-gamecraft", store, {"access": {"buckets": [store.root.removeprefix("memory://")]}})
    cells = {**ASKED, "image": store.uri("here/start.png"), "actions": [{"poses": store.uri("here/path.txt")}]}

    def paths() -> list[Control]:
        spec = desk.spec(cells, "a", ME, "interactive", None, True)
        return [*spec.controls, *desk.controls(cells["actions"], spec)]

    with pytest.raises(Refused) as refused:
        paths()
    assert {name for name, _, _ in refused.value.problems} == {"image", "actions[0].poses"}
    store.put("here/start.png", picture())
    store.put("here/path.txt", pose_rows(0.5).encode())
    first = paths()
    store.put("here/path.txt", pose_rows(0.7).encode())
    second = paths()
    assert first[0] == first[1] != second[0] == second[1]


def test_a_picture_that_is_none_is_refused_at_once(store: Store) -> None:
    async def play(studio: Studio) -> None:
        with pytest.raises(Refused) as refused:
            await studio.service.create(ASKED, ME, Upload("image", b"GIF89a, or so"))
        assert refused.value.field == "image"

    run(Studio(store), play)


def test_a_camera_path_can_be_sent_as_text(store: Store) -> None:
    async def play(studio: Studio) -> None:
        name = await begin(studio)
        await studio.service.control(name, ME, [{"poses": pose_rows(0.5)}], 0)
        await until(studio, name, "stored")
        await studio.kill()
        again = Studio(store)
        await again.start()
        live = again.registry.find(name)
        assert live is not None
        assert len(live.controls[0].rows) >= 33  # type: ignore[union-attr]
        await studio.start()
        await again.stop()

    run(Studio(store), play)


def test_a_service_that_stops_accepts_nothing_and_says_so(store: Store) -> None:
    async def main() -> None:
        studio = Studio(store)
        await studio.start()
        name = await begin(studio, "w d")
        listening = asyncio.create_task(until(studio, name, "draining"))
        await asyncio.sleep(5)
        await studio.stop()
        await listening
        assert (await studio.service.news(name, ME, None)).over
        with pytest.raises(NotReady):
            await begin(studio, "w")
        with pytest.raises(NotReady):
            await studio.service.control(name, ME, "w", None)
        assert studio.refused == ["not_ready"] * 2
        assert len(list(store.list(layout.staging_folder(name)))) == 2, "what was being denoised is durable"

    virtual_time.run(main())

"""What rows name on S3: looked at without fetching it whole, and refused by field. On both servers."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image, PngImagePlugin

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.store import open_store
from gamecraft_core.base.store_s3 import S3Store
from gamecraft_core.media import bounds
from orchestrator.manifest.sources import Sources
from tests.servers.s3 import S3Server


@pytest.fixture
def place(s3_server: S3Server) -> tuple[S3Store, Sources]:
    """A store, and rows' sources relative to its root."""
    root, options = s3_server.new_root(), {"endpoint_url": s3_server.endpoint}
    store = open_store(root, options)
    assert isinstance(store, S3Store)
    return store, Sources(root, options)


def noise(side: int, *, note: int = 0) -> bytes:
    """A PNG of about 3 x ``side`` x ``side`` bytes; ``note`` bytes of text stand before its size is known for sure."""
    buffer = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * note)
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_of_a_large_image_only_the_head_is_read(
    place: tuple[S3Store, Sources], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, looked = place
    store.put("large.png", noise(800))
    read: list[int] = []
    whole = S3Store.get_range

    def counted(self: S3Store, key: str, start: int, end: int, version: str) -> bytes:
        read.append(end - start)
        return whole(self, key, start, end, version)

    monkeypatch.setattr(S3Store, "get_range", counted)
    looked.check_image(looked.locate("large.png", "image"), "image")
    assert read == [256 << 10]


def test_a_small_image_and_one_with_a_long_header_are_accepted(place: tuple[S3Store, Sources]) -> None:
    store, looked = place
    store.put("small.png", noise(20))
    store.put("long.png", noise(20, note=400_000))
    for name in ("small.png", "long.png"):
        looked.check_image(looked.locate(name, "image"), "image")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"some text", "not an image"),
        (b"x" * 3000, "larger than"),
        (None, "does not exist"),
    ],
)
def test_a_bad_image_is_refused_by_field(
    place: tuple[S3Store, Sources], monkeypatch: pytest.MonkeyPatch, content: bytes | None, reason: str
) -> None:
    store, looked = place
    monkeypatch.setattr(bounds, "MAX_IMAGE_BYTES", 2000)
    if content is not None:
        store.put("bad.png", content)
    with pytest.raises(BadInput, match=reason) as caught:
        looked.check_image(looked.locate("bad.png", "image"), "image")
    assert caught.value.field == "image"


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"x" * 3000, "larger than"), (None, "not exist")])
def test_a_bad_clip_is_refused_by_its_size(
    place: tuple[S3Store, Sources], monkeypatch: pytest.MonkeyPatch, content: bytes | None, reason: str
) -> None:
    store, looked = place
    monkeypatch.setattr(bounds, "MAX_CLIP_BYTES", 2000)
    if content is not None:
        store.put("bad.mp4", content)
    with pytest.raises(BadInput, match=reason):
        looked.check_video(looked.locate("bad.mp4", "video"), "video")

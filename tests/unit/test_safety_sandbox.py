"""The decoding process: the same pixels as decoding here, and no death, hang or lie of it harms more than one item."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from gamecraft_core.base.errors import BadInput, LaneLost
from gamecraft_core.media import bounds
from gamecraft_core.media import sandbox as sandbox_module
from gamecraft_core.media.clip import read_last_frames
from gamecraft_core.media.image import FORMATS, cover_crop, header_check, read_image
from gamecraft_core.media.sandbox import Sandbox
from gamecraft_core.media.sandbox_process import SandboxProcess
from tests.fakes.malformed_files import png_bomb
from tests.fakes.recordings import flat_frames

SIZE = (24, 32)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture(scope="module")
def hostile() -> Iterator[Sandbox]:
    with Sandbox(child="tests.fakes.hostile_decoder") as made:
        yield made


def picture(form: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def clip(form: str, codec: str, count: int = 4, pixels: str = "yuv420p", size: tuple[int, int] = (64, 96)) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt, stream.codec_context.thread_count = pixels, 1
        for number in range(count):
            (frame,) = flat_frames([40 + 5 * number], *size)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame).reformat(format=pixels)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def good(sandbox: Sandbox) -> None:
    data = picture("PNG")
    assert np.array_equal(sandbox.image(data, *SIZE), cover_crop(read_image(data, max_pixels=9000), *SIZE))


def pid(sandbox: Sandbox) -> int:
    assert sandbox._process is not None
    return sandbox._process._popen.pid


PICTURES = {form: picture(form) for form in FORMATS} | {
    "turned": picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6)),
    "progressive": picture("JPEG", progressive=True),
    "grey": picture("JPEG", "L"),
    "inks": picture("JPEG", "CMYK"),
    "clear": picture("PNG", "RGBA"),
    "palette": picture("PNG", "P"),
    "deep": picture("PNG", "I;16"),
    "lossless": picture("WEBP", "RGBA", lossless=True),
    "moving": picture("GIF", "P", save_all=True, append_images=[Image.new("P", (60, 40))]),
}


def test_an_image_is_scaled_as_asked(sandbox: Sandbox) -> None:
    data = PICTURES["turned"]
    found = sandbox.image(data, *SIZE, scaling="lanczos")
    assert np.array_equal(found, cover_crop(read_image(data, max_pixels=9000), *SIZE, "lanczos"))
    assert not np.array_equal(found, sandbox.image(data, *SIZE))


@pytest.mark.parametrize("kind", PICTURES)
def test_an_image_comes_out_as_if_decoded_here(sandbox: Sandbox, kind: str) -> None:
    data = PICTURES[kind]
    found = sandbox.image(data, *SIZE)
    assert found.dtype == np.uint8
    assert np.array_equal(found, cover_crop(read_image(data, max_pixels=9000), *SIZE))
    assert sandbox.image_size(data) == header_check(data, max_pixels=9000)


@pytest.mark.parametrize(
    ("form", "codec", "pixels"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mov", "libx264", "yuv422p10le"),
        ("mp4", "libx265", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("mp4", "libsvtav1", "yuv420p"),
        ("matroska", "mjpeg", "yuvj420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("mpegts", "mpeg2video", "yuv420p"),
        ("gif", "gif", "rgb8"),
    ],
)
def test_a_clip_comes_out_as_if_decoded_here(sandbox: Sandbox, form: str, codec: str, pixels: str) -> None:
    data = clip(form, codec, pixels=pixels)
    found = sandbox.last_frames(data, 3, *SIZE)
    assert np.array_equal(found, read_last_frames(data, 3, max_pixels=9000, fit=SIZE))


def test_one_process_serves_many_items(sandbox: Sandbox) -> None:
    good(sandbox)
    first = pid(sandbox)
    with pytest.raises(BadInput, match="not an image"):
        sandbox.image(b"text", *SIZE, field="image")
    good(sandbox)
    assert pid(sandbox) == first


def test_threads_take_turns(sandbox: Sandbox) -> None:
    wrong: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(5):
                good(sandbox)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"crash", r"crashed \(SIGSEGV\)"),
        (b"leave", r"crashed \(status 7\)"),
        (b"spin", "more than 1 seconds of processor time"),
        (b"hang", "was not done after 2 seconds"),
        (b"eat", "more than 4 GiB of memory"),
        (b"long", "an answer of another kind"),
        (b"nothing", "an answer of another kind"),
        (b"riddle", "an answer of another kind"),
        (b"novel", "an answer of another kind"),
        (b"open", "Too many open files"),
        (b"connect", "Too many open files"),
    ],
)
def test_what_a_decoder_does_is_one_items_error(
    hostile: Sandbox, monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str
) -> None:
    good(hostile)
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "IMAGE_SECONDS", 1)
        patch.setattr(bounds, "WALL_FACTOR", 2 if data == b"hang" else 60)
        with pytest.raises(BadInput, match=reason) as caught:
            hostile.image(data, *SIZE, field="start")
    assert caught.value.field == "start"
    assert caught.value.remedy
    good(hostile)


def test_what_it_says_is_one_short_printable_line(hostile: Sandbox) -> None:
    with pytest.raises(BadInput) as caught:
        hostile.image(b"chatter", *SIZE)
    assert caught.value.message.startswith("a b [31mccc")
    assert len(caught.value.message) == 500
    assert caught.value.message.isprintable()
    assert caught.value.remedy == "d e"


def test_what_a_library_prints_reaches_nobody(hostile: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    good(hostile)
    with pytest.raises(BadInput, match="not an image"):
        hostile.image(b"log", *SIZE)
    assert capfd.readouterr() == ("", "")


def test_a_process_killed_between_two_items_is_replaced(hostile: Sandbox) -> None:
    good(hostile)
    first = pid(hostile)
    os.kill(first, signal.SIGKILL)
    good(hostile)
    assert pid(hostile) != first


def test_an_item_is_tried_again_before_it_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def start(child: str, memory_bytes: int, beat: Callable[[], None]) -> SandboxProcess:
        started.append("tests.fakes.hostile_decoder" if not started else child)
        return SandboxProcess(started[-1], memory_bytes, beat)

    monkeypatch.setattr(sandbox_module, "SandboxProcess", start)
    data = picture("PNG") + b"fatal"
    with Sandbox() as made:
        found = made.image(data, *SIZE)
    assert np.array_equal(found, cover_crop(read_image(data, max_pixels=9000), *SIZE))
    assert started == ["tests.fakes.hostile_decoder", sandbox_module.CHILD]


def test_whoever_waits_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[int] = []
    monkeypatch.setattr(bounds, "IMAGE_SECONDS", 2)
    monkeypatch.setattr(bounds, "WALL_FACTOR", 1)
    late = pytest.raises(BadInput, match="was not done after 2 seconds")
    with Sandbox(child="tests.fakes.hostile_decoder", beat=lambda: beats.append(1)) as made, late:
        made.image(b"hang", *SIZE)
    assert 1 <= len(beats) <= 4


def test_a_machine_on_which_none_starts_blames_no_item() -> None:
    with Sandbox(child="no_such_module") as broken, pytest.raises(LaneLost, match="does not start"):
        broken.image(picture("PNG"), *SIZE)


def test_real_pictures_may_need_more_memory_than_there_is() -> None:
    with Sandbox(memory_bytes=480 << 20) as small:
        with pytest.raises(BadInput, match=r"more than 0\.469 GiB of memory"):
            small.image(png_bomb(7900, 7900), *SIZE)
        good(small)
        large = clip("matroska", "mjpeg", count=34, pixels="yuvj420p", size=(2160, 3840))
        with pytest.raises(BadInput, match=r"memory|crashed") as caught:
            small.last_frames(large, 33, *SIZE)
        assert caught.value.field == "video"
        good(small)


def test_it_ends_with_its_owner_and_knows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    with Sandbox() as made:
        good(made)
        child = pid(made)
        with open(f"/proc/{child}/environ") as file:
            assert "planted-secret" not in file.read()
    assert not os.path.exists(f"/proc/{child}")

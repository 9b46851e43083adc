"""Images and clips that are broken, cut, lying or something else altogether, and places that are no files."""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.fakes.recordings import flat_frames

#: Shares of a file's length at which it is cut.
CUTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_header(width: int, height: int, depth: int = 8, colour: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that unfolds to ``width`` x ``height`` grey pixels."""
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    rows = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    return png(png_header(width, height), (b"IDAT", rows), (b"IEND", b""))


def picture(form: str, **options: Any) -> bytes:
    """A small picture of noise, so that its bytes matter to the end."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def clip(frames: int, form: str = "mp4", codec: str = "libx264", **options: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form, options=options) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.thread_count = 1
        for level in range(frames):
            (pixels,) = flat_frames([40 + level])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def sound(form: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=44100)
        kind = stream.codec_context.format.name
        frame = av.AudioFrame(format=kind, layout=stream.codec_context.layout.name, samples=1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def images() -> Iterator[tuple[str, bytes]]:
    """Name and content of every bad image."""
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        whole = picture(form)
        for cut in CUTS:
            yield f"cut-{int(100 * cut)}.{form.lower()}", whole[: int(len(whole) * cut)]
    yield from _lying_images()
    yield from _strangers("image")


def _lying_images() -> Iterator[tuple[str, bytes]]:
    whole = picture("PNG")
    pixels = (b"IDAT", zlib.compress(bytes(61 * 40)))
    for width, height in ((0, 40), (60, 0), (2**31 - 1, 2**31 - 1), (100_000, 100_000), (8001, 8000), (60, 40_000)):
        yield f"says-{width}x{height}.png", png(png_header(width, height), pixels, (b"IEND", b""))
    yield "depth.png", png(png_header(60, 40, depth=7), pixels, (b"IEND", b""))
    yield "colour.png", png(png_header(60, 40, colour=5), pixels, (b"IEND", b""))
    yield "no-pixels.png", png(png_header(60, 40), (b"IEND", b""))
    yield "not-zlib.png", png(png_header(60, 40), (b"IDAT", b"not zlib at all"), (b"IEND", b""))
    yield "checksum.png", whole[:60] + bytes([whole[60] ^ 0xFF]) + whole[61:]
    yield "bomb.png", png_bomb(9_000, 9_000)
    text = zlib.compress(bytes(80 << 20), 9)
    yield "text-bomb.png", png(png_header(60, 40), (b"zTXt", b"note\0\0" + text), pixels, (b"IEND", b""))
    yield "itxt-bomb.png", png(png_header(60, 40), (b"iTXt", b"note\0\1\0\0\0" + text), pixels, (b"IEND", b""))
    many = [(b"zTXt", b"n%d\0\0" % number + zlib.compress(bytes(1 << 20), 9)) for number in range(80)]
    yield "many-text-bombs.png", png(png_header(60, 40), *many, pixels, (b"IEND", b""))
    jpeg = picture("JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    yield "large.jpg", jpeg[:at] + struct.pack(">HH", 65_000, 65_000) + jpeg[at + 4 :]
    yield "flat.jpg", jpeg[:at] + struct.pack(">HH", 0, 60) + jpeg[at + 4 :]
    gif = picture("GIF")
    yield "large.gif", gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:]
    bmp = picture("BMP")
    yield "large.bmp", bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:]
    yield "negative.bmp", bmp[:18] + struct.pack("<ii", -60, 40) + bmp[26:]
    canvas = (16_383).to_bytes(3, "little") * 2
    yield "large.webp", b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + canvas


def _strangers(kind: str) -> Iterator[tuple[str, bytes]]:
    """Files of other kinds under a name that promises ``kind``."""
    ending = {"image": "png", "video": "mp4"}[kind]
    strangers = {
        "empty": b"",
        "one-byte": b"\x89",
        "zeros": bytes(10_000),
        "page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "text": b"this is a text\n" * 50,
        "json": b'{"image": true}',
        "vector": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "pickle": pickle.dumps({"loss": 1.0}),
        "zip": b"PK\x05\x06" + bytes(18),
        "document": b"%PDF-1.7\n%%EOF\n",
        "script": b"#!/bin/sh\nrm -rf /\n",
        "program": b"\x7fELF\x02\x01\x01" + bytes(100),
        "array": b"\x93NUMPY\x01\0",
        "playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "concatenation": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    }
    for name, data in strangers.items():
        yield f"{name}.{ending}", data
    if kind == "image":
        yield "tiff.png", picture("TIFF")
        yield "icon.png", picture("ICO")
        yield "clip.png", clip(2)


def videos() -> Iterator[tuple[str, bytes]]:
    """Name and content of every bad clip; none has 33 frames that can be decoded."""
    for name, whole in {
        "mp4": clip(40),
        "fragments.mp4": clip(40, movflags="empty_moov+default_base_moof+frag_keyframe"),
        "mkv": clip(40, "matroska"),
        "avi": clip(40, "avi", "mpeg4"),
    }.items():
        for cut in (0.0, 0.01, 0.1, 0.3, 0.5, 0.7):
            yield f"cut-{int(100 * cut)}.{name}", whole[: int(len(whole) * cut)]
    yield from _strangers("video")
    whole = clip(40)
    at = whole.rindex(b"moov")
    yield "no-index.mp4", whole[:at] + b"junk" + whole[at + 4 :]
    yield "wide-index.mp4", whole[: at - 4] + b"\0\0\0\1" + whole[at : at + 4] + b"\xff" * 8 + whole[at + 12 :]
    yield "short.mp4", clip(5)
    yield "picture.mp4", picture("PNG")
    yield "sound.mp4", sound("mp4", "aac")
    yield "sound.wav", sound("wav", "pcm_s16le")
    gif = picture("GIF")
    yield "large.gif", gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:]
    yield "boxes.mp4", whole[:32] + (struct.pack(">I", 8) + b"moov") * 20_000


def oddities() -> Iterator[tuple[str, bytes]]:
    """Clips and images that may be taken or refused, as long as that is soon."""
    whole = clip(40)
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20), (b"tkhd", 80), (b"tkhd", 84), (b"elst", 12)):
        at = whole.find(box)
        if at >= 0:
            yield f"{box.decode()}-{offset}.mp4", whole[: at + offset] + b"\x7f\xff\xff\xff" + whole[at + offset + 4 :]
    for box, offset in ((b"stts", 12), (b"stsz", 12), (b"stco", 8), (b"stsc", 8), (b"ctts", 8), (b"avc1", 28)):
        at = whole.find(box)
        if at >= 0:
            yield f"{box.decode()}-{offset}.mp4", whole[: at + offset] + b"\xff\xff\xff\xff" + whole[at + offset + 4 :]
    at = whole.rindex(b"moov") - 4
    yield "endless-index.mp4", whole[:at] + b"\x7f\xff\xff\xff" + whole[at + 4 :]
    pixels = (b"IDAT", zlib.compress(bytes(61 * 40)))
    few = (b"IDAT", zlib.compress(bytes(61 * 10)))
    yield "few-rows.png", png(png_header(60, 40), few, (b"IEND", b""))
    moving = (b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield "frames.png", png(png_header(60, 40), moving, pixels, (b"IEND", b""))
    yield "profile.png", png(png_header(60, 40), (b"iCCP", b"p\0\0" + zlib.compress(bytes(80 << 20), 9)), pixels)


def places(folder: Path) -> Iterator[str]:
    """Paths at which there is no plain file, made below ``folder`` where they need to be."""
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "circle-a.png").symlink_to("circle-b.png")
    (folder / "circle-b.png").symlink_to("circle-a.png")
    (folder / "dangling.png").symlink_to("nowhere-at-all.png")
    (folder / "device.png").symlink_to("/dev/zero")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(folder / "socket.png"))
    listener.close()
    yield from ("folder.png", "pipe.png", "loop.png", "circle-a.png", "dangling.png", "device.png", "socket.png")
    yield from ("/dev/zero", "/dev/null", "/dev/urandom", "/dev/tty", "/proc/self/mem", "/proc/self/status", "/")
    yield from (".", "..", "nowhere.png", "x" * 300 + ".png", "a/" * 1500 + "a.png", "good.png/inside.png")
    yield from (
        "~/good.png",
        "%2e%2e/good.png",
        "..%2fgood.png",
        "good.png\u202egnp.exe",
        "ｇｏｏｄ.png",
        "good\u200b.png",
    )

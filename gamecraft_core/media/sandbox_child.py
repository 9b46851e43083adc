"""The process that decodes what users send: one request at a time from stdin, the answer to stdout, nothing else.

Invariants: once it has said that it is ready, it can open no file and no socket, write no file, leave no core dump and
take no more than its share of memory and, for each request, of processor time. Its environment holds no credentials.
It ends when stdin does, so with whoever started it.

A message is a prefix (lengths of header and payload), a header in JSON and a payload of raw bytes. An answer without a
payload says in its header why: ``error`` and ``remedy``, or ``exhausted`` (the memory).
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
import time
from typing import Any, BinaryIO

import numpy as np

from gamecraft_core.base.errors import BadInput
from gamecraft_core.media.clip import read_last_frames
from gamecraft_core.media.fragment import encode_fragment
from gamecraft_core.media.image import FORMATS, cover_crop, header_check, read_image

PREFIX = struct.Struct("<IQ")

Answer = bytes | memoryview


def main(memory_bytes: int) -> None:
    """Serve until stdin ends."""
    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    _rehearse()
    _confine(memory_bytes)
    _send(outbox, {"ready": True})
    while prefix := inbox.read(PREFIX.size):
        header_bytes, payload_bytes = PREFIX.unpack(prefix)
        request = json.loads(inbox.read(header_bytes))
        payload = inbox.read(payload_bytes)
        used = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + request["seconds"], resource.RLIM_INFINITY))
        _send(outbox, *_answer(request, payload))


def _answer(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], Answer]:
    """Header and payload; whatever the decoders raise about a payload is an answer too."""
    try:
        return {}, _carry_out(request, payload)
    except BadInput as error:
        return {"error": error.message, "remedy": error.remedy}, b""
    except MemoryError:
        return {"exhausted": True}, b""
    except Exception as error:
        return {"error": f"it cannot be decoded ({type(error).__name__}: {error})", "remedy": "encode it again"}, b""


def _carry_out(request: dict[str, Any], payload: bytes) -> Answer:
    most = request["max_pixels"]
    if request["what"] == "size":
        return struct.pack("<II", *header_check(payload, max_pixels=most))
    size = request["height"], request["width"]
    if request["what"] == "image":
        return cover_crop(read_image(payload, max_pixels=most), *size, request["scaling"]).data.cast("B")
    limits = {"max_pixels": most, "max_frames": request["max_frames"]}
    return read_last_frames(payload, request["count"], **limits, fit=size).data.cast("B")


def _rehearse() -> None:
    """Decode something of each kind: libraries open files when first used, which later they cannot."""
    import av
    from PIL import Image

    av.logging.set_level(None)
    Image.init()
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    for form in FORMATS:
        buffer = io.BytesIO()
        Image.fromarray(frames[0]).save(buffer, form)
        cover_crop(read_image(buffer.getvalue(), max_pixels=256), 24, 16)
    clip = encode_fragment(frames, index=0, start_frame=0, fps=25).data
    read_last_frames(clip, 2, max_pixels=256, fit=(24, 16))


def _confine(memory_bytes: int) -> None:
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(silence, descriptor)
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _send(outbox: BinaryIO, header: dict[str, Any], payload: Answer = b"") -> None:
    text = json.dumps(header).encode()
    outbox.write(PREFIX.pack(len(text), len(payload)) + text)
    outbox.write(payload)
    outbox.flush()

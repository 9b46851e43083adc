"""The sandbox's child with a decoder that does on command what a broken one does by accident."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any

from gamecraft_core.media import sandbox_child
from gamecraft_core.media.image import read_image

_answer = sandbox_child._answer


def main(memory_bytes: int) -> None:
    vars(sandbox_child).update(read_image=_misbehaving, _answer=_lying)
    sandbox_child.main(memory_bytes)


def _misbehaving(data: bytes, **limits: Any) -> Any:
    match data:
        case _ if data.endswith((b"crash", b"fatal")):
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"leave":
            os._exit(7)
        case b"spin":
            while True:
                pass
        case b"hang":
            threading.Event().wait()
        case b"eat":
            return bytearray(1 << 40)
        case b"open":
            return open("/etc/hostname")
        case b"connect":
            return socket.create_connection(("127.0.0.1", 9))
        case b"log":
            os.write(1, b"to stdout")
            os.write(2, b"to stderr")
    return read_image(data, **limits)


def _lying(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    match payload:
        case b"long":
            return {}, b"x" * 5000
        case b"nothing":
            return {}, b""
        case b"riddle":
            return {"answer": 42}, b""
        case b"chatter":
            return {"error": "a\nb\x1b[31m" + "c" * 2000, "remedy": "d\0e"}, b""
        case b"novel":
            return {"error": "x" * 100_000, "remedy": ""}, b""
    answer, pixels = _answer(request, payload)
    return answer, bytes(pixels)

"""Decoding of what users send, in a process of its own whose death harms nobody.

Invariants: bytes go out, pixels of exactly the expected shape or one line of text come back, and nothing that comes
back is ever unpickled; whatever happens to the process, the item at hand becomes a BadInput that names its field,
and the next one finds a process that works. An item is blamed for a crash only when two processes in a row died of it
(the first may have been killed from outside). This keeps crashes and exhaustion away; it is no wall against code that
comes to run in a decoder, beyond that such code finds no credentials and can open nothing.
"""

from __future__ import annotations

import atexit
import functools
import math
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.errors import BadInput, LaneLost
from gamecraft_core.media import bounds
from gamecraft_core.media.image import Scaling
from gamecraft_core.media.sandbox_process import Broken, SandboxProcess

CHILD = "gamecraft_core.media.sandbox_child"

_START_SECONDS = 60
_MAX_TEXT = 500
_TRIES = 2

Pixels = npt.NDArray[np.uint8]


class Sandbox:
    """One decoding process, started when first needed (or by ``start``), kept, and replaced when it dies.

    Safe to share between threads, which take turns. ``memory_bytes`` bounds its address space; ``child`` is the module
    whose ``main`` it runs; ``beat`` is called about once a second while it is waited for.
    """

    def __init__(
        self, memory_bytes: int = bounds.MEMORY_BYTES, child: str = CHILD, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._memory_bytes = memory_bytes
        self._child = child
        self._beat = beat
        self._turn = threading.Lock()
        self._process: SandboxProcess | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Begin to start the process, so that the first item need not wait for it."""
        with self._turn:
            self._begun()

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._end()

    def image_size(self, head: bytes, field: str = "image") -> tuple[int, int]:
        """(height, width) as displayed of the image that begins with ``head``; BadInput where it is unacceptable."""
        request = {"what": "size", "max_pixels": bounds.MAX_IMAGE_PIXELS}
        height, width = struct.unpack("<II", self._ask(request, head, 8, bounds.IMAGE_SECONDS, field).data)
        return height, width

    def image(
        self, data: bytes, height: int, width: int, field: str = "image", scaling: Scaling = "bilinear"
    ) -> Pixels:
        """The image ``data`` as RGB uint8 [height, width, 3]: scaled to cover, its centre."""
        request = {"what": "image", "height": height, "width": width, "max_pixels": bounds.MAX_IMAGE_PIXELS}
        request |= {"scaling": scaling}
        return self._pixels(request, data, (height, width, 3), bounds.IMAGE_SECONDS, field)

    def last_frames(self, data: bytes, count: int, height: int, width: int, field: str = "video") -> Pixels:
        """The last ``count`` frames of the clip ``data`` as RGB uint8 [count, height, width, 3], each as ``image``."""
        request = {"what": "clip", "count": count, "height": height, "width": width}
        request |= {"max_pixels": bounds.MAX_CLIP_PIXELS, "max_frames": bounds.MAX_CLIP_FRAMES}
        return self._pixels(request, data, (count, height, width, 3), bounds.CLIP_SECONDS, field)

    def _pixels(self, request: dict[str, Any], data: bytes, shape: tuple[int, ...], seconds: int, field: str) -> Pixels:
        return self._ask(request, data, math.prod(shape), seconds, field).reshape(shape)

    def _ask(self, request: dict[str, Any], data: bytes, answer_bytes: int, seconds: int, field: str) -> Pixels:
        """The answer to ``request`` about ``data``: exactly ``answer_bytes``, within ``seconds`` of processor time."""
        request = request | {"seconds": seconds}
        with self._turn:
            for left in reversed(range(_TRIES)):
                try:
                    header, answer = self._ready(seconds).exchange(request, data, answer_bytes)
                    break
                except Broken as broken:
                    self._end()
                    if not (broken.again and left):
                        raise BadInput(str(broken), field=field, remedy=broken.remedy) from broken
            if header.get("exhausted"):
                self._end()
                most = f"{self._memory_bytes / 2**30:.3g} GiB of memory"
                raise BadInput(f"decoding it takes more than {most}", field=field, remedy="scale it down first")
        if "error" in header:
            raise BadInput(_line(header["error"]), field=field, remedy=_line(header.get("remedy")))
        return answer

    def _ready(self, seconds: int) -> SandboxProcess:
        """A process that is ready, its clock set. LaneLost where none can be had: that is no item's fault."""
        process = self._begun()
        if not process.ready:
            try:
                process.await_ready(_START_SECONDS)
            except Broken as broken:
                self._end()
                raise LaneLost(f"the process that decodes images and clips does not start: {broken}") from broken
        process.allow(seconds)
        return process

    def _begun(self) -> SandboxProcess:
        if self._process is not None and not self._process.alive:
            self._end()
        if self._process is None:
            self._process = SandboxProcess(self._child, self._memory_bytes, self._beat)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


@functools.cache
def shared() -> Sandbox:
    """This process's own sandbox, for whoever is not given one."""
    sandbox = Sandbox()
    atexit.register(sandbox.close)
    return sandbox


def _line(text: object) -> str:
    """What the process said, as one printable line of bounded length."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:_MAX_TEXT]

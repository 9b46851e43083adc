"""Start, pipes, clock and end of one decoding process, seen from outside (``sandbox_child`` is its inside).

Invariant: nothing here waits much longer than the time that was set by ``allow`` or ``await_ready``.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from gamecraft_core.media import bounds
from gamecraft_core.media.sandbox_child import PREFIX

_CODE = """import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2]).main(int(sys.argv[3]))"""
#: One thread, so that memory and results do not depend on the machine. No credentials. Memory is kept from one picture
#: to the next: fetching it anew from the system takes a third of the time of a full HD JPEG.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "LANG": "C.UTF-8",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
_KEPT = ("LD_LIBRARY_PATH",)

Bytes = npt.NDArray[np.uint8]

_PIPE_BYTES = 1 << 20
_MAX_HEADER = 64 << 10
_END_SECONDS = 5.0
_BEAT_SECONDS = 1.0
_STRANGE = "its decoder gave an answer of another kind"


class Broken(Exception):
    """The process did not answer as agreed; ``again`` where another one may do better."""

    def __init__(self, reason: str, remedy: str = "encode it again", *, again: bool = False) -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.again = again


class SandboxProcess:
    """A running child. Every method but ``end`` may raise Broken, after which only ``end`` makes sense.

    ``beat`` is called about once a second while it is waited for.
    """

    def __init__(self, child: str, memory_bytes: int, beat: Callable[[], None]) -> None:
        self.ready = False
        self._beat = beat
        self._seconds = 0
        self._deadline = 0.0
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CODE, path, child, str(memory_bytes)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env=_ENVIRONMENT | {name: os.environ[name] for name in _KEPT if name in os.environ},
            start_new_session=True,  # an interrupt at the terminal is for the job, which ends us in order
        )
        self._pipes = [pipe for pipe in (self._popen.stdin, self._popen.stdout) if pipe]
        self._to, self._from = (pipe.fileno() for pipe in self._pipes)
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
            with suppress(OSError):  # the user's share of large pipes may be taken
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def await_ready(self, seconds: int) -> None:
        """Wait for the child's first message."""
        self.allow(seconds)
        self._receive(0)
        self.ready = True

    def allow(self, seconds: int) -> None:
        """Set the clock: what follows may take this many seconds of processor time, and some more by the clock."""
        self._seconds = seconds
        self._deadline = time.monotonic() + bounds.WALL_FACTOR * seconds

    def exchange(self, request: dict[str, Any], payload: bytes, answer_bytes: int) -> tuple[dict[str, Any], Bytes]:
        """Send one request; the answer's header, and its payload of ``answer_bytes`` or none at all."""
        text = json.dumps(request).encode()
        self._write(PREFIX.pack(len(text), len(payload)) + text)
        self._write(payload)
        header, answer = self._receive(answer_bytes)
        if answer.size != answer_bytes and not header.keys() & {"error", "exhausted"}:
            raise Broken(_STRANGE, again=True)
        return header, answer

    def end(self) -> None:
        """Kill it, if it still runs, and leave nothing of it."""
        self._popen.kill()
        self._popen.wait()
        for pipe in self._pipes:
            pipe.close()

    def _receive(self, payload_bytes: int) -> tuple[dict[str, Any], Bytes]:
        header_length, length = PREFIX.unpack(self._read(PREFIX.size).data)
        if header_length > _MAX_HEADER or length not in (0, payload_bytes):
            raise Broken(_STRANGE, again=True)
        try:
            header = json.loads(self._read(header_length).tobytes())
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            raise Broken(_STRANGE, again=True)
        return header, self._read(length)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._await(self._to, select.POLLOUT)
            try:
                left = left[os.write(self._to, left[:_PIPE_BYTES]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._death() from None

    def _read(self, length: int) -> Bytes:
        data = np.empty(length, np.uint8)
        left = data.data
        while left:
            self._await(self._from, select.POLLIN)
            with suppress(BlockingIOError):
                count = os.readv(self._from, [left])
                if not count:
                    raise self._death()
                left = left[count:]
        return data

    def _await(self, descriptor: int, event: int) -> None:
        """Wait until ``descriptor`` can go on, or has ended."""
        poll = select.poll()
        poll.register(descriptor, event)
        while time.monotonic() < self._deadline:
            if poll.poll(1000 * _BEAT_SECONDS):
                return
            self._beat()
        raise Broken(f"its decoding was not done after {bounds.WALL_FACTOR * self._seconds} seconds", "shorten it")

    def _death(self) -> Broken:
        """How the process ended, or is about to."""
        try:
            code = self._popen.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return Broken("its decoder stopped answering", again=True)
        if code == -signal.SIGXCPU:
            return Broken(f"decoding it takes more than {self._seconds} seconds of processor time", "shorten it")
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return Broken(f"its decoder crashed ({how})", again=True)

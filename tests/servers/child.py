"""A server as a child process: started, awaited until it says ``ready URL``, and gone when its owner is gone."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_STOP_TIMEOUT_S = 60


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerChild:
    """Runs ``command`` from entry to exit of a ``with`` block; it must end by itself when its stdin closes."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        ready_timeout_s: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._log = log
        self._ready_timeout_s = ready_timeout_s
        self._env = {**os.environ, **(env or {})}
        self.url = ""

    def __enter__(self) -> ServerChild:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        try:
            self.url = self._await_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _await_ready(self) -> str:
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        deadline = time.monotonic() + self._ready_timeout_s
        said = b""
        while b"\n" not in said:
            readable, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(stream, 4096) if readable else b""
            if not piece:
                state = "ended" if readable else f"was not ready in {self._ready_timeout_s:.0f} s"
                raise RuntimeError(f"{self._command[:3]} {state}:\n{self._log.read_text(errors='replace')[-2000:]}")
            said += piece
        word, _, url = said.decode().split("\n")[0].partition(" ")
        if word != "ready":
            raise RuntimeError(f"{self._command[:3]} said {said!r} where 'ready URL' was due")
        return url

    def _stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise RuntimeError(f"{self._command[:3]} did not end when its stdin closed") from None
        finally:
            self._process.stdout.close()

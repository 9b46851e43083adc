"""The S3 server of a chaos run and the network before it: killed, restarted, slowed, made to refuse, all on demand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.servers import s3
from tests.servers.child import ServerChild, free_port
from tests.servers.proxy import FaultProxy, Mode

_RGW = Path(s3.__file__).with_name("rgw.sh")
_READY_TIMEOUT_S = 120.0
_STRIKE_TIMEOUT_S = 15.0
_POLL_S = 0.05


class Storage:
    """RADOS Gateway behind a fault proxy; moto where it is not installed, which cannot be killed and keep its data.

    ``server`` is reached by whoever verifies; ``env`` leads through the proxy. There is one ``outage`` at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = (free_port(), free_port())
        self._child: ServerChild | None = None
        self._proxy: FaultProxy | None = None
        self.outage = asyncio.Lock()
        self.name = "moto" if s3.missing_for_rgw() else "rgw"
        self.server = s3.S3Server(self.name, "")

    @property
    def proxy(self) -> FaultProxy:
        assert self._proxy is not None
        return self._proxy

    @property
    def env(self) -> Mapping[str, str]:
        return s3.S3Server(self.name, self.proxy.url).env

    @property
    def can_be_killed(self) -> bool:
        return self.name == "rgw"

    async def start(self) -> None:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        await self._serve()
        self._proxy = FaultProxy(self.server.endpoint)
        self._proxy.__enter__()

    async def fault(self, mode: Mode, seconds: float, latency: float = 0.0) -> int:
        """Have ``mode`` for ``seconds``, or for longer until it strikes; how often it did (0: nobody came by)."""
        self.proxy.fault(mode, seconds=latency)
        if mode == "refuse":
            self.proxy.disconnect()
        deadline = time.monotonic() + _STRIKE_TIMEOUT_S
        try:
            await asyncio.sleep(seconds)
            while not self.proxy.met and time.monotonic() < deadline:
                await asyncio.sleep(_POLL_S)
            return self.proxy.met
        finally:
            self.proxy.fault("pass")

    async def kill(self, seconds: float) -> bool:
        """SIGKILL the server, leave it dead for ``seconds``, and start it again on its data. True when it struck."""
        child = self._child
        assert child is not None
        crash = ["bash", str(_RGW), "crash", str(self._folder)]
        done = await asyncio.to_thread(subprocess.run, crash, capture_output=True, check=False)
        with suppress(RuntimeError):
            await asyncio.to_thread(child.__exit__, None, None, None)
        self._child = None
        await asyncio.sleep(seconds)
        await self._serve()
        return done.returncode == 0

    async def close(self) -> None:
        if self._proxy is not None:
            await asyncio.to_thread(self._proxy.__exit__, None, None, None)
        if self._child is not None:
            await asyncio.to_thread(self._child.__exit__, None, None, None)

    async def _serve(self) -> None:
        if self.can_be_killed:
            command = ["bash", str(_RGW), "serve", str(self._folder), *map(str, self._ports)]
        else:
            command = [sys.executable, "-m", "tests.servers.moto_server"]
        child = ServerChild(command, self._folder.with_suffix(".log"), ready_timeout_s=_READY_TIMEOUT_S)
        await asyncio.to_thread(child.__enter__)
        self._child = child
        self.server = s3.S3Server(self.name, child.url)

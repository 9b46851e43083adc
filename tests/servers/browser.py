"""Debian's Chromium without a window, spoken to over its own protocol: nothing but a WebSocket is needed for that."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

_START_TIMEOUT_S = 60.0
_DESK = {"width": 1100, "height": 900, "deviceScaleFactor": 1}
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


class Page:
    """One tab. ``complaints`` are what its scripts wrote as errors or threw."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a call of the protocol; events that come before it are looked at."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(60))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._heard(message)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 60.0) -> Any:
        """Wait for an expression to be true; its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(condition)):
            assert time.monotonic() < deadline, (
                f"{condition} is not true; the page says: {self.run('document.body.innerText')}"
            )
            time.sleep(0.05)
        return value

    def press(self, key: str, *, up: bool = False) -> None:
        kind = "keyUp" if up else "keyDown"
        self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=f"Key{key.upper()}", text="" if up else key)

    def tap(self, key: str) -> None:
        """A key without a letter, by name: Tab, Enter, Space, ArrowLeft, …"""
        number, text = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " "), "ArrowDown": (40, "")}[key]
        known = {"key": text if key == "Space" else key, "code": key, "windowsVirtualKeyCode": number}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **known)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **known)

    def touch(self, selector: str, *, up: bool = False) -> None:
        """A finger on the middle of an element, or off it."""
        middle = "(({x, y, width, height}) => ({x: x + width / 2, y: y + height / 2}))"
        place = self.run(f"{middle}(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")
        self.ask("Input.dispatchTouchEvent", type="touchEnd" if up else "touchStart", touchPoints=[] if up else [place])

    def open(self, url: str) -> None:
        self.ask("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def reload(self) -> None:
        self.run("window.before = true")
        self.ask("Page.reload")
        self.until("!window.before && document.readyState === 'complete'")

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def _heard(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])


@contextmanager
def browser(*options: str) -> Iterator[Browser]:
    """A running Chromium with a profile of its own, gone with the block; skips where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed (see tests/system_packages.sh)")
    with tempfile.TemporaryDirectory(prefix="fl-chromium-", ignore_cleanup_errors=True) as profile:
        command = [program, *_OPTIONS, *options, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            yield Browser(_address(process))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


class Browser:
    """Opens tabs."""

    def __init__(self, address: str) -> None:
        self._address = address

    @contextmanager
    def page(self, url: str, *, before: str = "", phone: bool = False) -> Iterator[Page]:
        """A tab; ``before`` is a script that runs before those of the page."""
        made = httpx.put(f"http://{self._address}/json/new?about:blank").json()
        with connect(made["webSocketDebuggerUrl"], max_size=64 << 20) as socket:
            page = Page(socket)
            size = {"width": 390, "height": 844, "deviceScaleFactor": 2} if phone else _DESK
            page.ask("Emulation.setDeviceMetricsOverride", mobile=phone, **size)
            page.ask("Emulation.setTouchEmulationEnabled", enabled=phone)
            page.ask("Page.addScriptToEvaluateOnNewDocument", source=before)
            page.open(url)
            yield page


def _address(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    deadline = time.monotonic() + _START_TIMEOUT_S
    for line in process.stderr:
        if found := re.search(rb"DevTools listening on ws://([^/]+)/", line):
            return found[1].decode()
        assert time.monotonic() < deadline
    raise RuntimeError("chromium ended before it could be spoken to")

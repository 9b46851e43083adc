"""The service on emulated lanes as a process of its own: ``python -m tests.servers.emulated_service OPTIONS``.

The web application, the sessions, the engine and what is stored are real; lanes take the seconds that they are told
(OPTIONS is the JSON of ``Emulation``). It says ``ready URL``, and ends when stdin closes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gamecraft_core.base.store import open_store
from orchestrator.limits import Limits
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.registry import Fetch
from tests.fakes.recordings import flat_frames
from tests.fakes.studio import Studio, grainy_frames
from tests.fakes.web import served
from tests.servers.child import ServerChild

_READY_TIMEOUT_S = 240.0

LANES = {"text": 1, "encode": 1, "denoise": 1, "decode": 1, "write": 1}


@dataclass(frozen=True)
class Emulation:
    """``store``: a folder. ``seconds`` of an order by its class, 0 of others. ``grainy``: chunks have some weight."""

    store: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=lambda: LANES)
    limits: Mapping[str, Any] = field(default_factory=dict)
    service: Mapping[str, Any] = field(default_factory=dict)
    grainy: bool = False

    def studio(self, fetch: Fetch | None = None) -> Studio:
        return Studio(
            open_store(self.store),
            Limits(**self.limits),
            ServiceLimits(**self.service),
            lambda order: self.seconds.get(type(order).__name__, 0.0),
            asyncio.to_thread,
            [stage for stage, many in self.lanes.items() for _ in range(many)],
            grainy_frames if self.grainy else flat_frames,
            fetch,
        )


@contextmanager
def emulated(emulation: Emulation, log: Path, module: str = "tests.servers.emulated_service") -> Iterator[ServerChild]:
    """Such a process, of ``module``."""
    command = [sys.executable, "-m", module, json.dumps(asdict(emulation))]
    with ServerChild(command, log, ready_timeout_s=_READY_TIMEOUT_S) as server:
        yield server


def main() -> None:
    with served(Emulation(**json.loads(sys.argv[1])).studio) as web:
        print(f"ready {web.url}", flush=True)
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()

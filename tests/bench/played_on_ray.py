"""The service over real Ray actors whose stages sleep, as a process: ``python -m tests.bench.played_on_ray OPTIONS``.

Between lanes everything is as in a run with models: orders, receipts and payloads go through Ray, chunks through the
store. OPTIONS is the JSON of an ``Emulation``; it says ``ready URL``, and ends when stdin closes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors import fleet
from actors.fleet_spec import FleetSpec, GroupSpec, LaneSpec, WriteSpec
from actors.role import Role, answering
from gamecraft_core.base.messages import STAGES, Order, Receipt, Stage
from gamecraft_core.base.store import open_store
from gamecraft_core.media.fragment import encode_fragment
from tests.fakes.lanes import facts_of
from tests.fakes.recordings import flat_frames
from tests.fakes.studio import Studio, made, preset
from tests.fakes.web import served
from tests.servers.cluster import local_cluster
from tests.servers.emulated_service import Emulation

ROOT = Path(__file__).resolve().parents[2]


class PlayedActor(Role):
    """A lane of any stage: an order takes its seconds, in which it makes what a ``StudioLane`` makes."""

    def __init__(self, lane: str, *arguments: Any) -> None:
        stage: Any = lane.partition("-")[0]
        super().__init__(stage, lane)
        told: Mapping[str, Any] = next(each for each in arguments if isinstance(each, dict))
        self._store, self._seconds = open_store(told["store"]), told["seconds"]
        self._turn = threading.Lock()

    def join(self, address: str | None) -> dict[str, Any]:
        return {}

    def warm(self) -> dict[str, Any]:
        encode_fragment(flat_frames([0]), index=0, start_frame=0, fps=25)  # the first one takes longer
        return self.ping()

    @answering
    def run(self, order: Order, *payloads: Any) -> tuple[Receipt, Any]:
        with self._turn:
            return self.carry(order, lambda: self._work(order, payloads))

    def _work(self, order: Order, payloads: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        end = time.monotonic() + self._seconds.get(type(order).__name__, 0.0)
        payload, facts = made(self._store, order, payloads)
        time.sleep(max(0.0, end - time.monotonic()))
        return payload, {**facts_of(order), **facts}


def spec(lanes: Mapping[str, int]) -> FleetSpec:
    return FleetSpec(
        name="played",
        text=LaneSpec(lanes=lanes["text"], num_cpus=0),
        encode=LaneSpec(lanes=lanes["encode"], num_cpus=0),
        denoise=(GroupSpec(groups=lanes["denoise"], num_cpus=0),),
        decode=LaneSpec(lanes=lanes["decode"], num_cpus=0),
        write=WriteSpec(lanes=lanes["write"], num_cpus=0),
    )


async def _bytes(ref: Any) -> bytes:
    fragment = await ref
    data: bytes = fragment.data
    return data


def main() -> None:
    emulation = Emulation(**json.loads(sys.argv[1]))
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray's warnings go to standard output
    roles: dict[Stage, type] = dict.fromkeys(STAGES, PlayedActor)
    options = {"store": emulation.store, "seconds": dict(emulation.seconds)}
    with local_cluster(ROOT):
        started = asyncio.run(fleet.start(spec(emulation.lanes), [preset()], emulation.store, options, roles))

        def studio() -> Studio:
            made = emulation.studio(_bytes)
            made.lanes = list(started.lanes)
            return made

        try:
            with served(studio) as web:
                print(f"ready {web.url}", file=ready, flush=True)
                sys.stdin.buffer.read()
        finally:
            started.close()


if __name__ == "__main__":
    main()

"""The real job on lanes that cost nothing, as a process of its own: everything but the fleet is the product's.

python -m tests.bench.million MANIFEST OUT NOTES ROWS_PER_SHARD STARTED [KILL_AFTER]

Emulated: a lane answers at once, and a commit puts its session's name only, with no record behind it: a million records
would be 26 GB. The names are put conditionally and listed in earnest, and the shards hold real rows. After KILL_AFTER
settled sessions, once the shards have caught up with them, the process kills itself. NOTES, a JSON file, tells when the
first order went out, in seconds since STARTED, and what lanes read from the store.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

import actors.lanes  # noqa: F401  what a real control plane has loaded counts as its memory
from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import (
    CommitOrder,
    DecodeOrder,
    DenoiseOrder,
    EncodeOrder,
    FailOrder,
    Order,
    PublishOrder,
    Receipt,
    Stage,
    WriteOrder,
)
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import LocalStore
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.commit import commit_session, fail_session
from gamecraft_core.dataset.rows import read_table
from gamecraft_core.dataset.shards import put_shard
from jobs.config import resolve
from jobs.run import Request, run
from jobs.signals import Stopper
from jobs.work import Work
from orchestrator.engine import Settled
from orchestrator.ports import Lane, Ref
from tests.fakes.recordings import staged_order

LANES: dict[Stage, int] = {"text": 1, "encode": 2, "denoise": 4, "decode": 4, "write": 4}
DEPTH = 4


def name_of(number: int) -> str:
    """The session of manifest row ``number``."""
    return f"s{number:08d}"


def number_of(name: str) -> int:
    return int(name[1:])


def chunks_of(number: int) -> int:
    return 2 if number % 10 == 3 else 1


def is_wrong(number: int) -> bool:
    """Validation refuses the row."""
    return number % 500 == 499


def is_unreadable(number: int) -> bool:
    """A lane refuses the session's start."""
    return number % 400 == 101


class Names(LocalStore):
    """A folder in which a committed session's record is its name: an empty file, unsynced. Counts what is read."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.read: Counter[str] = Counter()
        for folder in (layout.COMMITS, layout.FAILURES):
            self._path(folder).mkdir(parents=True, exist_ok=True)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not key.startswith(layout.COMMITS):
            return super().put_if_absent(key, data)
        try:
            with open(self._path(key), "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        if key.startswith(layout.FAILURES):
            self._path(key).write_bytes(data)
        else:
            super().put(key, data)

    def get(self, key: str) -> bytes:
        self.read[key.partition("/")[0]] += 1
        return super().get(key)


@dataclass
class Fleet:
    """What the lanes share: the store, what they have done, and what makes them stop."""

    store: Names
    started: float
    rows_per_shard: int
    kill_after: int | None
    settled: int = 0
    published: int = 0
    first_order: float | None = None

    def lanes(self) -> list[Lane]:
        return [FreeLane(f"{stage}-{number}", stage, self) for stage, many in LANES.items() for number in range(many)]

    def carry(self, order: Order) -> tuple[dict[str, Any], Ref]:
        """The facts and the payload of any order but a shard's."""
        if self.first_order is None:
            self.first_order = time.time() - self.started
        match order:
            case EncodeOrder() if is_unreadable(number_of(order.session_id)):
                raise BadInput("the image cannot be read", field="image", remedy="save it again")
            case DenoiseOrder():
                return {"payload_bytes": 10, "latents_sha256": "0" * 64}, None
            case DecodeOrder():
                return {"payload_bytes": 10, "frames": order.frames}, None
            case WriteOrder():
                return {"stored": True, "record": asdict(order.record), "bytes": 100}, None
            case CommitOrder():
                if not self.store.put_if_absent(layout.commit_key(order.session_id), b""):
                    raise RuntimeError(f"{order.session_id} is committed twice")
                self._count()
                return {"stored": True, "bytes": 200}, order.session_id
            case FailOrder():
                failure = fail_session(self.store, order)
                self._count()
                return {"failure": failure}, None
            case _:
                return {"payload_bytes": 10}, None

    def publish(self, order: PublishOrder, fresh: tuple[Ref, ...]) -> dict[str, Any]:
        """Put a real shard: every row is that of any session of its length, under its own id and number."""
        for session_id in order.stored:
            self.store.get(layout.commit_key(session_id))
        names = sorted((*order.stored, *fresh))
        numbers = [number_of(name) for name in names]
        table = self._rows.take(pa.array([chunks_of(number) - 1 for number in numbers], pa.int64()))
        for column, values in (("session_id", names), ("row", numbers)):
            at = table.schema.get_field_index(column)
            table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
        put_shard(self.store, order.shard, order.total, [table])
        return {"bytes": table.nbytes}

    def put(self) -> None:
        """One more shard is there."""
        self.published += 1
        self._die_when_due()

    def _count(self) -> None:
        self.settled += 1
        self._die_when_due()

    def _die_when_due(self) -> None:
        """After ``kill_after`` sessions, as soon as what is published has caught up with what is settled."""
        if self.kill_after is None or self.settled < self.kill_after:
            return
        if self.settled - self.published * self.rows_per_shard < 1.5 * self.rows_per_shard:
            os.kill(os.getpid(), signal.SIGKILL)

    @cached_property
    def _rows(self) -> pa.Table:
        """The rows of a session of one chunk and of one of two, from real commits into a store beside this one."""
        beside = LocalStore(f"{self.store.root}.rows")
        rows = [commit_session(beside, staged_order(beside, f"r{chunks}", chunks)).row for chunks in (1, 2)]
        for key in beside.list(layout.VIDEOS):
            self.store.put_if_absent(key, beside.get(key))
        return pa.concat_tables(map(read_table, rows)).combine_chunks()


@dataclass(frozen=True, slots=True)
class FreeLane:
    """A lane that answers at once; shards are put on a thread, as a lane elsewhere would."""

    name: str
    stage: Stage
    fleet: Fleet
    preset: str | None = None
    sp_degree: int = 1
    depth: int = DEPTH
    speed: float | None = None

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        started = time.time()
        if isinstance(order, PublishOrder):
            facts, ref = await asyncio.to_thread(self.fleet.publish, order, payloads), None
            self.fleet.put()
        else:
            facts, ref = self.fleet.carry(order)
        receipt = Receipt(
            stage=self.stage,
            session_id=order.session_id,
            index=getattr(order, "index", 0),
            lane=self.name,
            started=started,
            ended=time.time(),
            facts={"memory_bytes": 1 << 20, **facts},
        )
        return receipt, ref


class _NoKeeper:
    """No lane is ever lost here."""

    async def rebuild(self, lane: Lane) -> Lane:
        raise RuntimeError(f"{lane.name} was lost")


def main(arguments: list[str]) -> int:
    manifest, out, notes, rows_per_shard, started, *kill_after = arguments
    fleet = Fleet(Names(out), float(started), int(rows_per_shard), int(kill_after[0]) if kill_after else None)

    async def on_free_lanes(work: Work, rows: Iterator[SessionSpec | Settled]) -> bool:
        stopper = Stopper()
        stopper.listen()
        facts = {name: {"weights_fingerprint": "f" * 16, "hardware": "none"} for name in work.config.presets}
        return await work.on_lanes(fleet.lanes(), facts, _NoKeeper(), rows, stopper)

    config = resolve("tiny-gamecraft", sets=[f"output.rows_per_shard={rows_per_shard}"])
    status = run(Request(config=config, manifest=manifest, out=out, metrics_port=0), on_free_lanes)
    Path(notes).write_text(json.dumps({"first_order": fleet.first_order, "read": fleet.store.read}))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A manifest of a million rows on lanes that cost nothing: memory, speed, resuming, and every row accounted for.

ROWS=50000 makes it smaller. The job (``tests.bench.million``) is killed at half, run again to its end, and once more
when there is nothing left to do. A row that is not where it belongs ends the benchmark with an error.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.exits import Exit
from tests.bench.harness import Bench
from tests.bench.million import chunks_of, is_unreadable, is_wrong, name_of

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "jobs" / "demo" / "inputs" / "harbour.png"

ROWS = 1_000_000
ROWS_PER_SHARD = 1000
GOAL_MIB = 1500.0
GOAL_RESUME_S = 120.0
GOAL_WALL_S = 15 * 60.0


@dataclass(frozen=True, slots=True)
class Phase:
    """One start of the job as its own process: seconds (by the wall, of CPU), peak resident memory, what it noted."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    first_order_s: float | None
    records_read: int


@dataclass(frozen=True, slots=True)
class Million:
    """A job in ``folder`` of ``rows`` rows."""

    folder: Path
    rows: int
    rows_per_shard: int

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def settling(self) -> int:
        """Sessions that lanes settle: rows without those that validation refuses."""
        return sum(not is_wrong(number) for number in self._numbers())

    def write_manifest(self) -> None:
        with open(self.folder / "manifest.jsonl", "w") as file:
            for number in self._numbers():
                actions = "jump" if is_wrong(number) else " ".join(["w"] * chunks_of(number))
                row = {"session_id": name_of(number), "image": str(IMAGE), "prompt": "A harbour.", "actions": actions}
                file.write(json.dumps(row) + "\n")

    def start(self, expected: int, kill_after: int | None = None) -> Phase:
        """Run the job to its end, or until it kills itself."""
        notes, log = self.folder / "notes.json", self.folder / "log.txt"
        notes.unlink(missing_ok=True)
        started = time.time()
        command = [sys.executable, "-m", "tests.bench.million", self.folder / "manifest.jsonl", self.out, notes]
        command += [self.rows_per_shard, started, *([] if kill_after is None else [kill_after])]
        with open(log, "wb") as output:
            child = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != expected:
            raise RuntimeError(f"the job ended with {child.returncode}, not {expected}:\n{log.read_text()[-4000:]}")
        noted: dict[str, Any] = json.loads(notes.read_text()) if notes.exists() else {"first_order": None, "read": {}}
        return Phase(
            seconds=time.time() - started,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_mib=usage.ru_maxrss / 1024,
            first_order_s=noted["first_order"],
            records_read=noted["read"].get("_commits", 0),
        )

    def shards(self) -> dict[str, tuple[int, int]]:
        """Every shard by its name, with what changes when it is written again; a kill may leave hidden files beside."""
        found = ((path.name, path.stat()) for path in sorted((self.out / "data").glob("train-*")))
        return {name: (status.st_ino, status.st_mtime_ns) for name, status in found}

    def check(self) -> None:
        """Every row is where it belongs, once: in its shard, in its place, or in the errors table with its reason."""
        failed = [number for number in self._numbers() if is_wrong(number) or is_unreadable(number)]
        counts = json.loads((self.out / "run.json").read_text())["counts"]
        told = {name: counts[name] for name in ("rows", "committed", "failed", "remaining")}
        _same(told, {"rows": self.rows, "committed": self.rows - len(failed), "failed": len(failed), "remaining": 0})
        errors = pq.read_table(self.out / "errors.parquet", columns=["row", "stage"])
        stages = ["validate" if is_wrong(number) else "encode" for number in failed]
        _same(errors.to_pydict(), {"row": failed, "stage": stages})
        total = -(-self.rows // self.rows_per_shard)
        names = [f"train-{index:05d}-of-{total:05d}.parquet" for index in range(total)]
        _same(list(self.shards()), names)
        gone = set(failed)
        for index, name in enumerate(names):
            first = index * self.rows_per_shard + 1
            numbers = [n for n in range(first, min(first + self.rows_per_shard, self.rows + 1)) if n not in gone]
            table = pq.read_table(self.out / "data" / name, columns=["session_id", "row"])
            _same(table.to_pydict(), {"session_id": list(map(name_of, numbers)), "row": numbers})

    def _numbers(self) -> Iterator[int]:
        return iter(range(1, self.rows + 1))


def killed_and_resumed(job: Million) -> tuple[Phase, Phase]:
    """Run ``job``, kill it at half, and run it to its end; shards that stood are not touched again."""
    job.write_manifest()
    first = job.start(-signal.SIGKILL, kill_after=job.settling() // 2)
    before = job.shards()
    second = job.start(Exit.SOME_ROWS_FAILED)
    after = job.shards()
    _same({name: after[name] for name in before}, before)
    job.check()
    return first, second


def _same(found: Any, expected: Any) -> None:
    if found != expected:
        raise RuntimeError(f"found {str(found)[:500]}, expected {str(expected)[:500]}")


def main() -> int:
    rows = int(os.environ.get("ROWS", ROWS))
    bench = Bench("million", {"rows": rows, "rows_per_shard": ROWS_PER_SHARD})
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        job = Million(Path(folder), rows, ROWS_PER_SHARD)
        first, second = killed_and_resumed(job)
        again = job.start(Exit.SOME_ROWS_FAILED)
        job.check()
        sessions = job.settling()
    assert second.first_order_s is not None
    for name, phase in (("first_half", first), ("second_half", second), ("finished_again", again)):
        bench.figure(f"{name}_seconds", phase.seconds, "s")
        bench.figure(f"{name}_cpu_seconds", phase.cpu_seconds, "s")
        bench.figure(f"{name}_peak_memory", phase.peak_mib, "MiB", goal=GOAL_MIB)
    bench.figure("resume_to_first_order", second.first_order_s, "s", goal=GOAL_RESUME_S)
    bench.figure("sessions_per_second", sessions / (first.seconds + second.seconds), "1/s", better="higher")
    bench.figure("records_read_on_resume", second.records_read, "1")
    bench.figure("wall", time.perf_counter() - began, "s", goal=GOAL_WALL_S)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())

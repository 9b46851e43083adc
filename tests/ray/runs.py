"""Running the product's job on the tests' Ray cluster, small, and reading back what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.dataset

from gamecraft_core.dataset import layout
from jobs.synthesize import main
from tests.servers.cluster import ENV, RayCluster

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ROOT / "jobs" / "demo" / "inputs"

#: The embedded default's models at a size where a chunk takes a fraction of a second.
SMALL = ("video.height=32", "video.width=48", "sampling.steps=3")

DEADLINE_S = 120.0


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its exit status and its output folder."""

    status: int
    out: Path

    def rows(self) -> dict[str, dict[str, Any]]:
        """Committed sessions by id, as readers see them."""
        table = pyarrow.dataset.dataset(self.out / "data").to_table()
        return {row["session_id"]: row for row in table.to_pylist()}

    def latents(self, session_id: str) -> list[npt.NDArray[np.float32]]:
        """The kept latents of a session, flat, chunk by chunk."""
        chunks = self.rows()[session_id]["chunks"]
        return [np.fromfile(chunk["latents_uri"].removeprefix("file://"), "<f4") for chunk in chunks]

    def slices(self, stage: str) -> dict[tuple[str, int], tuple[float, float]]:
        """(start, end) in microseconds of every slice of ``stage`` in the timeline, by session and chunk."""
        events = json.loads((self.out / "timeline.json").read_text())["traceEvents"]
        return {
            (event["args"]["session"], event["args"]["chunk"]): (event["ts"], event["ts"] + event["dur"])
            for event in events
            if event["ph"] == "X" and event["cat"] == stage
        }


def row(name: str, actions: str = "w d", **columns: Any) -> dict[str, Any]:
    return {
        "session_id": name,
        "image": str(INPUTS / "harbour.png"),
        "prompt": "A harbour.",
        "actions": actions,
        "seed": 7,
    } | columns


def manifest(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def synthesize(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    fleet: str,
    *options: str,
    preset: str = "tiny-gamecraft",
    settings: Sequence[str] = SMALL,
) -> Finished:
    """Run the job in this process on the cluster that it is connected to."""
    out = folder / "out"
    argv = ["--preset", preset, "--manifest", str(manifest(folder, rows)), "--out", str(out)]
    argv += ["--fleet", fleet, "--metrics-port", "0", *options]
    for setting in settings:
        argv += ["--set", setting]
    return Finished(main(argv), out)


class Job:
    """The command line as a child process, on the tests' cluster."""

    def __init__(
        self,
        cluster: RayCluster,
        folder: Path,
        rows: Sequence[Mapping[str, Any]],
        preset: str = "tiny-gamecraft",
        settings: Sequence[str] = SMALL,
        **environment: str,
    ) -> None:
        self.out = folder / "out"
        command = [sys.executable, "-m", "jobs.synthesize", "--preset", preset, "--fleet", "laptop"]
        command += ["--manifest", str(manifest(folder, rows)), "--out", str(self.out), "--metrics-port", "0"]
        command += [part for setting in settings for part in ("--set", setting)]
        self.log = folder / "log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--address", cluster.address],
                cwd=ROOT,
                env={**os.environ, **ENV, **environment},
                stdout=log,
                stderr=log,
            )

    def when(self, seen: Callable[[], bool], number: signal.Signals) -> int:
        """Send ``number`` as soon as ``seen`` says so; the job's exit status."""
        self._send_when(seen, number)
        return self.process.wait(DEADLINE_S)

    def _send_when(self, seen: Callable[[], bool], number: signal.Signals) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not seen():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.005)
        self.process.send_signal(number)

    def interrupt_twice(self, seen: Callable[[], bool]) -> int:
        """Ask the job to stop, and then to stop at once."""
        self._send_when(seen, signal.SIGTERM)
        return self.when(lambda: "a second one ends at once" in self.log.read_text(), signal.SIGTERM)

    def staged(self, session_id: str) -> int:
        return len(list((self.out / layout.STAGING / session_id).glob("*.safetensors")))


def essence(done: Finished) -> dict[str, Any]:
    """What must not depend on when anything broke: every bit of latents and videos."""
    return {
        name: (found["video_sha256"], [chunk["latents_sha256"] for chunk in found["chunks"]])
        for name, found in done.rows().items()
    }

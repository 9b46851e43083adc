"""Running the product's job on the tests' Ray cluster, small, and reading back what it left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.dataset

from jobs.synthesize import main

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ROOT / "jobs" / "demo" / "inputs"

#: The embedded default's models at a size where a chunk takes a fraction of a second.
SMALL = ("video.height=32", "video.width=48", "sampling.steps=3")


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

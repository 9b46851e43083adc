"""The main job on the embedded default: how long ``make demo`` takes once installed, and how well decode hides."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.harness import Bench

ROOT = Path(__file__).resolve().parents[2]
GOAL_S = 90.0
GOAL_OVERLAP = 0.7
SAMPLES = 3


def main() -> int:
    command = ["-m", "jobs.synthesize", "--preset", "tiny-gamecraft", "--manifest", "jobs/demo/manifest.jsonl"]
    command += ["--fleet", "demo", "--metrics-port", "0"]
    bench = Bench("job", {"command": " ".join(("python", *command)), "samples": SAMPLES})
    seconds, overlaps, rates = [], [], []
    for _ in range(SAMPLES):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "demo")
            started = time.perf_counter()
            subprocess.run([sys.executable, *command, "--out", str(out)], cwd=ROOT, check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
            counts = json.loads((out / "run.json").read_text())["counts"]["this_start"]
            overlaps.append(counts["overlap_ratio"])
            rates.append(counts["frames"] / seconds[-1])
    bench.figure("demo_seconds", seconds, "s", goal=GOAL_S)
    bench.figure("demo_overlap_ratio", overlaps, "1", goal=GOAL_OVERLAP, better="higher")
    bench.figure("demo_frames_per_second", rates, "frames/s")
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())

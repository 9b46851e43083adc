"""The main job on the embedded default: how long ``make demo`` takes once installed, and how well decode hides."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.harness import Bench
from tests.ray.runs import Finished, manifest, row

ROOT = Path(__file__).resolve().parents[2]
GOAL_S = 90.0
GOAL_OVERLAP = 0.7
SAMPLES = 3


def overlapping_decodes() -> float:
    """Share of decodes that overlap the next denoise of their session, where there are no more sessions than groups."""
    rows = [row(f"s{number}", "w*5", seed=number) for number in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = [
            "-m",
            "jobs.synthesize",
            "--preset",
            "tiny-gamecraft",
            "--manifest",
            str(manifest(Path(folder), rows)),
        ]
        command += ["--fleet", "three", "--metrics-port", "0", "--out", str(out)]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        decode, denoise = Finished(0, out).slices("decode"), Finished(0, out).slices("denoise")
    pairs = [(decode[name, index], denoise[name, index + 1]) for name, index in decode if (name, index + 1) in denoise]
    return sum(max(a[0], b[0]) < min(a[1], b[1]) for a, b in pairs) / len(pairs)


def main() -> int:
    command = ["-m", "jobs.synthesize", "--preset", "micro-gamecraft", "--manifest", "jobs/demo/micro/manifest.jsonl"]
    command += ["--fleet", "demo", "--metrics-port", "0", "--set", "runtime.threads=1"]
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
    bench.figure("decodes_under_next_denoise", overlapping_decodes(), "1", goal=1.0, better="higher")
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())

"""How long a user waits for ``python -m jobs.synthesize --help``."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from tests.bench.harness import Bench, timed

COMMAND = (sys.executable, "-m", "jobs.synthesize", "--help")
GOAL_S = 0.7
SAMPLES = 5


def main() -> int:
    bench = Bench("startup", {"command": " ".join(("python", *COMMAND[1:])), "samples": SAMPLES})
    if find_spec("jobs.synthesize") is None:
        bench.skip("synthesize_help", "there is no jobs.synthesize")
        return bench.finish()
    bare = timed(lambda: subprocess.run((sys.executable, "-c", "pass"), check=True), SAMPLES)
    answer = timed(lambda: subprocess.run(COMMAND, check=True, stdout=subprocess.DEVNULL), SAMPLES)
    bench.figure("python_alone", bare, "s")
    bench.figure("synthesize_help", answer, "s", goal=GOAL_S)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())

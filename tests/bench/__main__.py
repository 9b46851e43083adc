"""Run benchmarks: ``python -m tests.bench [NAME ...]``; NAME is any module ``tests/bench/bench_NAME.py``, default all.

Each runs in a process of its own. Status: 1 where one failed or (with CHECK=1) is short of a goal, else 2 where one
found the machine busy, else 0.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.harness import BUSY, OK, SHORT

TOTAL_TIMEOUT_S = 40 * 60

_PREFIX = "bench_"


def known() -> list[str]:
    return sorted(path.stem.removeprefix(_PREFIX) for path in Path(__file__).parent.glob(f"{_PREFIX}*.py"))


def main(names: Sequence[str]) -> int:
    if unknown := [name for name in names if name not in known()]:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known())}", file=sys.stderr)
        return SHORT
    deadline = time.monotonic() + TOTAL_TIMEOUT_S
    statuses = []
    for name in names or known():
        print(f"== {name}", flush=True)
        statuses.append(_run(name, deadline - time.monotonic()))
    if any(status not in (OK, BUSY) for status in statuses):
        return SHORT
    return max(statuses)


def _run(name: str, timeout_s: float) -> int:
    try:
        return subprocess.run(
            [sys.executable, "-m", f"tests.bench.{_PREFIX}{name}"], timeout=max(0, timeout_s)
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped, all benchmarks together may take {TOTAL_TIMEOUT_S // 60} minutes", file=sys.stderr)
        return SHORT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

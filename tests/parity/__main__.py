"""``python -m tests.parity [GOLDENS]``: every case of every family below a folder, one line each.

The last line of stdout is ``N passed, N failed``; why something failed is told on stderr. Status 1 where a case failed
or no family was found.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import torch

from tests.parity.check import Result, run
from tests.parity.discover import cases, families, uncompared
from tests.parity.golden import Folder

_ROOT = Path(__file__).resolve().parents[2]
SHARED = _ROOT.parent / "shared" / "goldens"
COMMITTED = Path(__file__).resolve().parent


def default() -> Path:
    """The goldens beside the repository where they are, else the subset committed here."""
    return SHARED if SHARED.is_dir() else COMMITTED


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    root = Path(arguments[0]) if arguments else default()
    found = families(root)
    counts: Counter[bool] = Counter()

    def tell(result: Result) -> None:
        counts[result.passed] += 1
        print(result.line, flush=True)
        for reason in result.reasons:
            print(f"  {result.name}: {reason}", file=sys.stderr, flush=True)

    for one in found:
        folder = Folder(one.path, one.label)
        for case in cases(folder):
            tell(run(case))
        for result in uncompared(folder):
            tell(result)
    if not found:
        print(f"no goldens of a known family in {root}", file=sys.stderr)
    print(f"{counts[True]} passed, {counts[False]} failed")
    return 1 if counts[False] or not found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

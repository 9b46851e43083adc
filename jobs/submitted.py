"""What a submitted job runs on the cluster: the job itself, and one last line that says how it ended.

    python -m jobs.submitted synthesize --preset … --manifest … --out …

Ray tells a stopped job's end late (it waits for as long as the job might have taken) and never its exit status; the
last line tells both at once.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence

#: Jobs that can be submitted, by their module's name below ``jobs``.
JOBS = ("synthesize", "generate", "serve", "doctor")

_LAST = "framelane: ended with exit status "


def last_line(status: int) -> str:
    return f"{_LAST}{status}"


def status_in(line: str) -> int | None:
    """The exit status that ``line`` tells of, if it is the last one."""
    told = line.strip().removeprefix(_LAST)
    return int(told) if told != line.strip() and told.isdecimal() else None


def main(argv: Sequence[str] | None = None) -> int:
    job, *arguments = sys.argv[1:] if argv is None else argv
    status = 1
    try:
        status = int(importlib.import_module(f"jobs.{job}").main(arguments))
    except SystemExit as ended:  # argparse's way out
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception:
        traceback.print_exc()  # before the last line: nobody reads on after it
    finally:
        sys.stdout.flush()
        print(last_line(status), file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())

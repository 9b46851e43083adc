"""Exit codes of the jobs, and how an error reaches the person who caused it: one line, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum

from gamecraft_core.base.errors import BadInput, FramelaneError, UsageError


class Exit(IntEnum):
    """What a job's exit status means."""

    ALL_COMMITTED = 0
    FAILED = 1
    REFUSED = 2
    SOME_ROWS_FAILED = 3
    STOPPED = 4


def guarded(job: Callable[[], int]) -> int:
    """Run ``job``; an error with a verdict becomes a line on stderr and an exit status."""
    try:
        return job()
    except (UsageError, BadInput) as error:
        print(f"refused: {error}", file=sys.stderr)
        return Exit.REFUSED
    except FramelaneError as error:
        print(f"failed: {error}", file=sys.stderr)
        return Exit.FAILED
    except KeyboardInterrupt:
        print("interrupted; what is committed stays, and the same command resumes", file=sys.stderr)
        return Exit.STOPPED

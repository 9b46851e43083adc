"""Which code this is: the package's version and, in a git checkout, the commit it runs from."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path

VERSION = "0.1.0"

_ROOT = Path(__file__).resolve().parents[2]
#: Where a copy of the code that is not installed and has no git says which one it is, below the packages' folder.
STAMP = Path("gamecraft_core/base/code_version.txt")
_GIT_TIMEOUT_S = 5


@lru_cache(maxsize=1)
def code_version() -> str:
    """``0.1.0`` when installed from a wheel; ``0.1.0+g<commit>[.dirty]`` in a checkout, and in a copy made of one."""
    if (_ROOT / STAMP).exists():
        return (_ROOT / STAMP).read_text().strip()
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return VERSION
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{VERSION}+g{commit}.dirty" if changed else f"{VERSION}+g{commit}"


def _git(*arguments: str) -> str:
    """What git prints about this checkout; empty where there is none, or no git."""
    if not (_ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()

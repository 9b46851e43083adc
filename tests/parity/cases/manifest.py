"""The folder's manifest: size and SHA-256 of every file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.parity.check import Case, Check
from tests.parity.golden import Folder

NAME = "manifest.json"


def cases(folder: Folder, name: str) -> Iterator[Case]:
    for entry, described in folder.json(name).items():
        yield Case(f"manifest/{entry}", partial(_file, folder.path / entry, described))


def _file(path: Path, entry: dict[str, Any], check: Check) -> None:
    data = path.read_bytes()
    check.equal("bytes", len(data), entry["bytes"])
    check.equal("sha256", hashlib.sha256(data).hexdigest(), entry["sha256"])

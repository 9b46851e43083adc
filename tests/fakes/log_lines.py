"""Logging set up as a job does it, for as long as a block lasts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gamecraft_core.base import logs


@contextmanager
def set_up(form: logs.Form, **known: Any) -> Iterator[None]:
    root, ours, hook = logging.getLogger(), logging.getLogger("framelane"), sys.excepthook
    before, levels = root.handlers[:], (root.level, ours.level)
    logs.setup(form, **known)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        logging.captureWarnings(False)
        sys.excepthook = hook

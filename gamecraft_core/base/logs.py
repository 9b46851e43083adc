"""Logging set-up: plain lines on stderr, one place, chosen by the entry point."""

from __future__ import annotations

import logging
import sys


def setup(level: str = "INFO") -> None:
    """Send every framelane log line to stderr with time and level; third parties stay at WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("framelane").setLevel(level)

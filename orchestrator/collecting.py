"""The garbage collector while very many sessions are under way.

Sessions, tasks and receipts live for long and hold no cycles. Looked at as often as Python does by default, they cost a
tenth of every decision and, with 10,000 sessions, pauses; and nothing of them is ever found to be garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: New objects before the young are looked at, and young looks before the older ones, and the oldest, are.
_RARELY = (100_000, 50, 100)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Inside, the collector looks at objects rarely; cycles are still found."""
    before = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)

"""Progress while a run works: a live display on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.logs import in_json
from gamecraft_core.base.messages import STAGES, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.manifest.manifest import Survey
from orchestrator.ports import Listener

if TYPE_CHECKING:
    from rich.console import RenderableType

log = logging.getLogger("framelane.progress")

_LINE_EVERY_S = 5.0


class Before(NamedTuple):
    """What had settled before this start: rows, and the chunks of those rows that were good."""

    committed: int
    failed: int
    chunks: int

    @property
    def settled(self) -> tuple[int, int]:
        """Rows, and chunks."""
        return self.committed + self.failed, self.chunks


class Progress(Listener):
    """A listener and a context manager.

    ``settled`` says how many rows had committed and failed before, and how many chunks those rows have; ``lanes`` how
    many lanes a stage has right now, ``busy`` how many of them hold work.
    """

    def __init__(
        self,
        survey: Survey,
        settled: Callable[[], Before],
        lanes: Callable[[Stage], int],
        busy: Callable[[Stage], int],
    ) -> None:
        self._survey = survey
        self._before = settled
        self._lanes = lanes
        self._busy = busy
        self._committed = 0
        self._failed = 0
        self._chunks = 0
        self._frames = 0
        self._started = time.monotonic()
        self._next_line = self._started + _LINE_EVERY_S
        self._live: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not in_json():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._render, console=Console(stderr=True), refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            log.info("%s", self.line())

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        if receipt.stage == "decode":
            self._chunks += 1
            self._frames += int(receipt.facts.get("frames", 0))
        if self._live is None and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            log.info("%s", self.line())

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self._committed += error is None
        self._failed += error is not None

    def line(self) -> str:
        """Everything the display shows, in one line."""
        return f"{self._made()}  busy: {self._lanes_busy()}"

    def _made(self) -> str:
        before = self._before()
        failures = before.failed + self._failed
        failed = f" ({failures} failed)" if failures else ""
        return (
            f"sessions {before.committed + self._committed}/{self._survey.rows}{failed}  "
            f"chunks {self._chunks}/{self._total()}  {self._rate():.1f} frames/s  ETA {self._eta()}"
        )

    def _total(self) -> int:
        """Chunks of this start."""
        return max(0, self._survey.chunks - self._before().chunks)

    def _lanes_busy(self) -> str:
        return "  ".join(f"{stage} {self._busy(stage)}/{self._lanes(stage)}" for stage in STAGES)

    def _rate(self) -> float:
        return self._frames / max(time.monotonic() - self._started, 1e-9)

    def _eta(self) -> str:
        left = max(0, self._total() - self._chunks)
        if not self._chunks:
            return "-"
        seconds = round(left * (time.monotonic() - self._started) / self._chunks)
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"

    def _render(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        shown = Table.grid()
        shown.add_row(ProgressBar(total=max(1, self._total()), completed=self._chunks, width=60))
        shown.add_row(Text(self._made()))
        shown.add_row(Text(f"lanes busy  {self._lanes_busy()}", style="dim"))
        return shown

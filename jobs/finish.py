"""What a run leaves besides its sessions: errors table, timeline, contact sheet, run.json, and a summary to read."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from gamecraft_core.base.ahead import ahead
from gamecraft_core.base.errors import BadInput, FramelaneError
from gamecraft_core.base.messages import STAGES, Receipt, Stage
from gamecraft_core.base.points import reached
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.commit import sweep
from gamecraft_core.dataset.errors_table import ErrorRow, ErrorTable, first_errors, stored_failures
from jobs.exits import Exit
from jobs.progress import Before
from orchestrator.ports import Listener
from orchestrator.timeline import Timeline

log = logging.getLogger("framelane.finish")

_SHEET_SESSIONS = 64
_LISTED_FAILURES = 20


class Report(Listener):
    """Counts rows while the run goes on, and writes its closing files.

    Invariant: memory is a byte a row and what ``ErrorTable`` needs for the failures; earlier starts' are left in
    the store until the table is written.
    """

    def __init__(self, record: dict[str, Any], rows: int, started: float) -> None:
        self._record = record
        self._rows = rows
        self._started = started
        self._errors = ErrorTable()
        self._earlier_failures: list[str] = []
        self._failed = bytearray(rows + 1)
        self._committed = 0
        self._frames = 0
        self._calls: Counter[Stage] = Counter()
        self._seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self.before = Before(0, 0, 0)

    @property
    def made_anything(self) -> bool:
        """Some lane has answered since this start."""
        return bool(self._calls)

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        self._calls[receipt.stage] += 1
        self._seconds[receipt.stage] += receipt.seconds
        self._frames += int(receipt.facts.get("frames", 0))
        if "failure" in receipt.facts:  # as it is stored, and as a resumed run will find it
            self._add([ErrorRow(**receipt.facts["failure"])])

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self._committed += error is None

    def found_committed(self, chunks: int) -> None:
        """A row that an earlier start committed."""
        self._committed += 1
        self.before = Before(self.before.committed + 1, self.before.failed, self.before.chunks + chunks)

    def found_failed(self, row: int, session_id: str, chunks: int) -> None:
        """A row whose session failed in an earlier start, which recorded why."""
        self._failed[row] = True
        self._earlier_failures.append(session_id)
        self.before = Before(self.before.committed, self.before.failed + 1, self.before.chunks + chunks)

    def refused(self, errors: Iterable[ErrorRow], chunks: int = 0) -> None:
        """A row that is not tried, with all that is wrong with it."""
        self._add(list(errors))
        self.before = Before(self.before.committed, self.before.failed + 1, self.before.chunks + chunks)

    def begin(self, store: Store, metrics_url: str) -> None:
        """Note in run.json that the run is under way, and where its metrics are."""
        self._record["metrics_url"] = metrics_url
        claim.finish(store, self._record)

    def aborted(self, store: Store, timeline: Timeline) -> None:
        """The run could not go on: keep what helps to see why. The store itself may be what is away."""
        with suppress(FramelaneError):
            store.put(layout.TIMELINE, timeline.to_json())
            claim.finish(store, self._record | {"status": "aborted", "counts": self._counts(None)})

    def write(self, store: Store, timeline: Timeline, *, finished: bool) -> None:
        """Write the closing files; run.json comes last and says that they are all there."""
        reached("finish.begun")
        for error in stored_failures(store, self._earlier_failures):
            self._errors.add(error)
        self._errors.write(store)
        store.put(layout.TIMELINE, timeline.to_json())
        sheet = _contact_sheet(store)
        if sheet is not None:
            store.put(layout.CONTACT_SHEET, sheet)
        if finished:
            sweep(store)
            reached("finish.swept")
        counts = self._counts(timeline.overlap_ratio())
        claim.finish(store, self._record | {"status": "finished" if finished else "stopped", "counts": counts})

    def status(self, *, finished: bool) -> int:
        if not finished:
            return Exit.STOPPED
        return Exit.SOME_ROWS_FAILED if any(self._failed) else Exit.ALL_COMMITTED

    def _add(self, errors: list[ErrorRow]) -> None:
        """Everything that is wrong with one row; the same failure heard twice counts once."""
        if self._failed[errors[0].row]:
            return
        self._failed[errors[0].row] = True
        for error in errors:
            self._errors.add(error)

    def _counts(self, overlap: float | None) -> dict[str, Any]:
        """Rows are of the whole run, ``this_start`` of the work done since it was last started."""
        failed = self._failed.count(True)
        return {
            "rows": self._rows,
            "committed": self._committed,
            "failed": failed,
            "remaining": self._rows - self._committed - failed,
            "this_start": {
                "frames": self._frames,
                "seconds": round(time.time() - self._started, 3),
                "overlap_ratio": overlap,
            },
        }

    def show(self, store: Store, overlap: float | None, *, finished: bool) -> None:
        """The summary, on standard output."""
        from rich.console import Console
        from rich.table import Table

        wall = time.time() - self._started
        ended = "finished" if finished else "stopped, resumable"
        table = Table(title=f"run {self._record['run_id']}: {ended}", show_header=False)
        table.add_column("")
        table.add_column("", justify="right")
        counts = self._counts(overlap)
        for name in ("rows", "committed", "failed", "remaining"):
            if counts[name] or name != "remaining":
                table.add_row(name, str(counts[name]))
        table.add_row("wall time", f"{wall:.1f} s")
        if self._frames:
            table.add_row("frames made", f"{self._frames} ({self._frames / wall:.1f} a second)")
        for stage, calls in self._calls.items():
            table.add_row(f"{stage}, mean of {calls}", f"{self._seconds[stage] / calls:.3f} s")
        if overlap is not None:
            table.add_row("decode hidden behind denoise", f"{100 * overlap:.0f} %")
        console = Console()
        console.print(table)
        errors: list[ErrorRow] = []
        lines = 0
        with suppress(FramelaneError, FileNotFoundError):
            errors, lines = first_errors(store, _LISTED_FAILURES)
        for error in errors:
            what = BadInput(error.reason, field=error.field, remedy=error.remedy)
            line = f"row {error.row}, {error.session_id or '-'}: {what}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if lines > len(errors):
            console.print(f"and {lines - len(errors)} more in {store.uri(layout.ERRORS)}")
        console.print(f"output: {store.root}", markup=False, highlight=False, soft_wrap=True)


def _contact_sheet(store: Store) -> bytes | None:
    """First, middle and last frame of the first sessions, read back from what was published."""
    from av.error import FFmpegError

    from gamecraft_core.media.contact_sheet import SheetRow, contact_sheet, sheet_frames

    def card(row: dict[str, Any]) -> SheetRow | None:
        try:
            frames = sheet_frames(store.get(row["video_path"]), row["num_frames"])
        except (FramelaneError, FFmpegError, OSError, ValueError) as error:
            log.warning("no card on the contact sheet: %s", error, extra={"session": row["session_id"]})
            return None
        return SheetRow(row["session_id"], row["prompt"], frames)

    cards = [made for made in ahead(card, _published(store, _SHEET_SESSIONS)) if made]
    return contact_sheet(cards) if cards else None


def _published(store: Store, limit: int) -> Iterator[dict[str, Any]]:
    """The first ``limit`` rows that readers see, in manifest order."""
    from gamecraft_core.dataset.rows import read_table

    for key in store.list(layout.DATA):
        table = read_table(store.get(key), ["session_id", "prompt", "num_frames", "video_path"])
        for row in table.slice(0, limit).to_pylist():
            yield row
            limit -= 1
        if limit <= 0:
            return

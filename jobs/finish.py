"""What a run leaves besides its sessions: errors table, timeline, contact sheet, run.json, and a summary to read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gamecraft_core.base.errors import BadInput, FramelaneError, StoreUnavailable
from gamecraft_core.base.messages import STAGES, Receipt
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import claim, layout
from jobs.exits import Exit
from orchestrator.manifest.rows import RowErrors
from orchestrator.ports import Lane
from orchestrator.timeline import Timeline

log = logging.getLogger("framelane.finish")

_SHEET_SESSIONS = 64
_LISTED_FAILURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One line of the errors table."""

    session_id: str
    row: int
    field: str
    stage: str
    reason: str
    remedy: str


class Report:
    """A listener that counts rows, and writes the run's closing files."""

    def __init__(self, record: dict[str, Any], rows: int, started: float, failures: dict[str, Failure]) -> None:
        self._record = record
        self._rows = rows
        self._started = started
        self._failures = list(failures.values())
        self._failed_rows = {failure.row for failure in self._failures}
        self._committed = 0
        self._frames = 0
        self._seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}

    def admitted(self, spec: SessionSpec, now: float) -> None:
        pass

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        totals = self._seconds[receipt.stage]
        totals[:] = [sum(totals[:1]) + receipt.seconds, sum(totals[1:]) + 1]
        self._frames += int(receipt.facts.get("frames", 0))

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        if error is None:
            self._committed += 1
            return
        log.warning("row %d, %s failed: %s", spec.row, spec.session_id, error)
        self._add(
            Failure(
                session_id=spec.session_id,
                row=spec.row,
                field=error.field,
                stage="run",
                reason=error.message,
                remedy=error.remedy,
            )
        )

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        pass

    def found(self, row: int, session_id: str) -> None:
        """A row that an earlier start committed."""
        self._committed += 1

    def refused(self, row: RowErrors) -> None:
        """A row that validation turned away, with everything that is wrong with it."""
        for error in row.errors:
            self._add(
                Failure(
                    session_id=error.session_id,
                    row=error.row,
                    field=error.field,
                    stage=error.stage,
                    reason=error.reason,
                    remedy=error.remedy,
                )
            )

    def begin(self, store: Store, metrics_url: str) -> None:
        """Note in run.json that the run is under way, and where its metrics are."""
        self._record["metrics_url"] = metrics_url
        claim.finish(store, self._record)

    def aborted(self, store: Store, timeline: Timeline) -> None:
        """The run could not go on: keep what helps to see why. The store itself may be what is away."""
        with suppress(StoreUnavailable):
            store.put(layout.TIMELINE, timeline.to_json())
            claim.finish(store, self._record | {"status": "aborted", "counts": self._counts()})

    def conclude(self, store: Store, *, finished: bool, timeline: Timeline | None) -> int:
        """Write the closing files (not when nothing was done: ``timeline`` None) and print the summary."""
        overlap = None
        if timeline is not None:
            from gamecraft_core.dataset.errors_table import ErrorRow, write_errors

            overlap = timeline.overlap_ratio()
            write_errors(
                store,
                (
                    ErrorRow(
                        row=failure.row,
                        session_id=failure.session_id,
                        field=failure.field,
                        stage=failure.stage,
                        reason=failure.reason,
                        remedy=failure.remedy,
                    )
                    for failure in self._failures
                ),
            )
            store.put(layout.TIMELINE, timeline.to_json())
            sheet = _contact_sheet(store)
            if sheet is not None:
                store.put(layout.CONTACT_SHEET, sheet)
            status = "finished" if finished else "stopped"
            counts = self._counts() | {"overlap_ratio": overlap, "seconds": round(time.time() - self._started, 3)}
            claim.finish(store, self._record | {"status": status, "counts": counts})
        self._print(store, overlap, finished)
        if not finished:
            return Exit.STOPPED
        return Exit.SOME_ROWS_FAILED if self._failed_rows else Exit.ALL_COMMITTED

    def _add(self, failure: Failure) -> None:
        self._failures.append(failure)
        self._failed_rows.add(failure.row)

    def _counts(self) -> dict[str, Any]:
        failed = len(self._failed_rows)
        return {
            "rows": self._rows,
            "committed": self._committed,
            "failed": failed,
            "remaining": self._rows - self._committed - failed,
            "frames": self._frames,
        }

    def _print(self, store: Store, overlap: float | None, finished: bool) -> None:
        from rich.console import Console
        from rich.table import Table

        counts, wall = self._counts(), time.time() - self._started
        table = Table(
            title=f"run {self._record['run_id']}: {'finished' if finished else 'stopped, resumable'}", show_header=False
        )
        table.add_column("")
        table.add_column("", justify="right")
        table.add_row("rows", str(counts["rows"]))
        table.add_row("committed", str(counts["committed"]))
        table.add_row("failed", str(counts["failed"]))
        if counts["remaining"]:
            table.add_row("remaining", str(counts["remaining"]))
        table.add_row("wall time", f"{wall:.1f} s")
        if self._frames:
            table.add_row("frames made", f"{self._frames} ({self._frames / wall:.1f} a second)")
            for stage in STAGES:
                if self._seconds[stage]:
                    total, number = self._seconds[stage]
                    table.add_row(f"{stage}, mean of {number:.0f}", f"{total / number:.3f} s")
        if overlap is not None:
            table.add_row("decode hidden behind denoise", f"{100 * overlap:.0f} %")
        console = Console()
        console.print(table)
        for failure in sorted(self._failures, key=lambda each: each.row)[:_LISTED_FAILURES]:
            error = BadInput(failure.reason, field=failure.field, remedy=failure.remedy)
            console.print(
                f"row {failure.row}, {failure.session_id or '-'}: {error}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if len(self._failures) > _LISTED_FAILURES:
            console.print(f"and {len(self._failures) - _LISTED_FAILURES} more in {store.uri(layout.ERRORS)}")
        console.print(f"output: {store.root}", markup=False, highlight=False, soft_wrap=True)


def _contact_sheet(store: Store) -> bytes | None:
    """First, middle and last frame of the first sessions, read back from what was published."""
    from gamecraft_core.media.contact_sheet import SheetRow, contact_sheet, sheet_frames

    cards = [
        SheetRow(row["session_id"], row["prompt"], sheet_frames(store.get(row["video_path"]), row["num_frames"]))
        for row in _published(store, _SHEET_SESSIONS)
    ]
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

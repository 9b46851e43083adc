"""The progress display: what is done, how fast, how long still, who is busy; within 80 columns."""

from __future__ import annotations

from rich.console import Console

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import Receipt
from jobs.progress import Before, Progress
from orchestrator.manifest.manifest import Survey
from tests.fakes.sessions import session

NOTHING = Before(0, 0, 0)


def progress(before: Before = NOTHING) -> Progress:
    survey = Survey(rows=5, good=4, bad=1, chunks=12, frames=396, errors=())
    return Progress(survey, lambda: before, lambda stage: 2, lambda stage: int(stage == "denoise"))


def decoded(index: int) -> Receipt:
    facts = {"frames": 33}
    return Receipt(stage="decode", session_id="s", index=index, lane="d", started=0, ended=1, facts=facts)


def test_the_display_says_it_all_in_80_columns() -> None:
    shown = progress(Before(committed=1, failed=1, chunks=3))
    shown.settled(session(), decoded(0), 0, 0)
    shown.settled(session(), decoded(1), 0, 0)
    shown.finished(session(), None, 0)
    shown.finished(session(), BadInput("no"), 0)
    console = Console(width=80, record=True, force_terminal=True)
    console.print(shown._render())
    text = console.export_text()
    assert "sessions 2/5 (2 failed)" in text
    assert "chunks 2/9" in text, "chunks of earlier starts are not this one's to make"
    assert "frames/s" in text
    assert "ETA 0:0" in text
    assert "denoise 1/2" in text
    assert "write 0/2" in text


def test_nothing_done_yet_has_no_eta() -> None:
    assert "ETA -" in progress().line()

"""Log lines: their fields in both forms, and that nothing else reaches stderr where machines read it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from gamecraft_core.base import logs
from gamecraft_core.base.errors import UsageError
from jobs.config import identity, resolve
from jobs.exits import guarded
from tests.fakes.log_lines import set_up

log = logging.getLogger("framelane.test")


def entries(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_json_line_has_time_level_logger_message_and_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    with set_up("json", run="run-1", lane="denoise-0@tiny"), logs.about(session="s", chunk=0):
        log.warning("step %d", 3, extra={"stage": "denoise", "lane": "denoise-1@tiny", "tenant": None})
    (entry,) = entries(capsys.readouterr().err)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "WARNING",
        "logger": "framelane.test",
        "message": "step 3",
        "run": "run-1",
        "session": "s",
        "chunk": 0,
        "stage": "denoise",
        "lane": "denoise-1@tiny",
    }
    with set_up("json"):
        log.info("again")
    (entry,) = entries(capsys.readouterr().err)
    assert before <= datetime.fromisoformat(entry["time"]) <= datetime.now(UTC)
    assert "run" not in entry


def test_text_shows_the_fields_in_brackets_before_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with set_up("text", run="run-1"):
        log.info("alone")
        try:
            raise ValueError("no")
        except ValueError:
            log.exception("failed", extra={"session": "s", "chunk": 2})
    alone, failed, *traceback = capsys.readouterr().err.splitlines()
    assert alone.endswith(" INFO framelane.test alone")
    assert failed.endswith(" ERROR framelane.test failed [session=s chunk=2]")
    assert traceback[0].startswith("Traceback")


def test_a_traceback_is_a_field_and_the_entry_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with set_up("json"):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.exception("failed\nindeed")
    (entry,) = entries(capsys.readouterr().err)
    assert entry["message"] == "failed\nindeed"
    assert entry["exception"].endswith("ValueError: two\nlines")


def test_blocks_nest_and_end_and_are_one_threads_own(capsys: pytest.CaptureFixture[str]) -> None:
    with set_up("json"):
        with logs.about(session="outer", stage="decode"):
            with logs.about(session="inner"):
                log.info("1")
            log.info("2")
            other = threading.Thread(target=log.info, args=("3",))
            other.start()
            other.join()
        log.info("4")
    told = [(entry.get("session"), entry.get("stage")) for entry in entries(capsys.readouterr().err)]
    assert told == [("inner", "decode"), ("outer", "decode"), (None, None), (None, None)]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_job_that_is_refused_says_so_in_its_form(form: logs.Form, capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> int:
        raise UsageError("no", field="out")

    with set_up(form):
        assert logs.in_json() is (form == "json")
        assert guarded(job) == 2
    said = capsys.readouterr().err
    assert (entries(said)[0]["message"] if form == "json" else said.rstrip("\n")) == "refused: out: no"


def test_warnings_and_what_nobody_catches_are_entries_too() -> None:
    script = (
        "from gamecraft_core.base import logs; import warnings; logs.setup('json', run='r'); warnings.warn('old'); 1/0"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    warned, crashed = entries(done.stderr)
    assert "UserWarning: old" in warned["message"]
    assert (crashed["level"], crashed["run"]) == ("CRITICAL", "r")
    assert crashed["exception"].endswith("ZeroDivisionError: division by zero")


def test_a_library_that_brought_its_own_handler_is_taken_over(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = logging.getLogger("theirs")
    theirs.addHandler(logging.StreamHandler(sys.stdout))
    theirs.propagate = False
    with set_up("json"):
        logs.take_over("theirs")
        theirs.error("here")
    out, err = capsys.readouterr()
    assert (out, entries(err)[0]["logger"]) == ("", "theirs")


def test_what_is_told_is_no_part_of_what_is_made() -> None:
    quiet, loud = resolve("tiny-gamecraft"), resolve("tiny-gamecraft", sets=["telemetry.logs=json"])
    assert loud.telemetry.of("run-1").logs == "json"
    assert identity(quiet) == identity(loud)

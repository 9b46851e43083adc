"""The first signal asks, the second calls off, the third ends the process; and nothing can hold that up."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Longer than any of this takes, for a program that does not end.
_DEADLINE_S = 60.0


def program(body: str, patience_s: float) -> str:
    """A program that listens, and says so; ``body`` is its work, in which ``stopper`` can be used."""
    return textwrap.dedent("""
        import asyncio, os, signal, sys, threading
        from types import SimpleNamespace
        from jobs.signals import Stopper

        def say(word):
            print(word, flush=True)

        async def work():
            stopper = Stopper({patience_s})
            stopper.listen()
            try:
        {body}
            finally:
                stopper.hand_back()
                say("handed back")

        try:
            asyncio.run(work())
        except asyncio.CancelledError:
            sys.exit(7)
    """).format(patience_s=patience_s, body=textwrap.indent(textwrap.dedent(body).strip(), " " * 8))


def ends(source: str, *exchange: tuple[str, Sequence[signal.Signals]]) -> tuple[int, str, str]:
    """Run ``source``; to every line it is to say, answer with signals. Its status, what else it said, its stderr."""
    with subprocess.Popen(
        [sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            for line, numbers in exchange:
                assert child.stdout.readline().strip() == line
                for number in numbers:
                    child.send_signal(number)
            said, errors = child.communicate(timeout=_DEADLINE_S)
        finally:
            child.kill()
    return child.returncode, said.strip(), errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_there_is_an_engine_the_first_calls_off(number: signal.Signals) -> None:
    status, said, _ = ends(program("say('ready'); await asyncio.Event().wait()", 60), ("ready", [number]))
    assert (status, said) == (7, "handed back")


def test_an_engine_is_stopped_and_only_the_second_signal_calls_it_off() -> None:
    body = """
    stopper.first = lambda: say("first")
    stopper.engine = SimpleNamespace(stop=lambda: say("stopped"))
    say("ready")
    await asyncio.Event().wait()
    """
    status, said, errors = ends(
        program(body, 60), ("ready", [signal.SIGTERM]), ("first", []), ("stopped", [signal.SIGTERM])
    )
    assert (status, said) == (7, "handed back")
    assert "a second one ends at once" in errors


#: Work that gives the event loop no chance to hear of anything.
STUCK = """
def stuck_here():
    threading.Event().wait()
say("ready")
stuck_here()
"""


def test_work_that_does_not_let_go_is_ended_and_shows_where_it_was() -> None:
    # Two signals that differ: two of a kind can reach a process as one.
    status, said, errors = ends(program(STUCK, 0.2), ("ready", [signal.SIGTERM, signal.SIGINT]))
    assert (status, said) == (4, "")
    assert "stuck_here" in errors


def test_whoever_insists_is_not_kept_waiting() -> None:
    body = """
    def insist():
        for count in range(3):
            while stopper._count < count:  # two of a kind can reach a process as one
                threading.Event().wait(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=insist).start()
    threading.Event().wait()
    """
    status, said, errors = ends(program(body, 1e6))
    assert (status, said) == (4, "")
    assert "Thread" not in errors

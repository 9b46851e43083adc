"""Chaos: a real job on a real cluster and a real S3 server, and faults until it breaks or has proved itself.

    python -m tests.chaos --faults 200 --seed 1 --out out/chaos

Exit status 0 when every fault struck and every round came out as an undisturbed run would, 1 otherwise. The report is
OUT/report.json, the picture OUT/timeline.svg. The same seed and number give the same schedule.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.play import Play, Settings
from tests.chaos.report import outcome, write

_SESSIONS = 8


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.chaos", description="Hurt a job, then check every byte of it.")
    made.add_argument("--faults", type=int, default=200, help="how many must strike (default: 200)")
    made.add_argument("--seed", type=int, default=1, help="of the schedule and the manifest (default: 1)")
    made.add_argument("--out", type=Path, default=Path("out/chaos"), help="report, picture, logs, reference runs")
    made.add_argument("--minutes", type=float, default=36.0, help="no fault after that (default: 36)")
    made.add_argument("--sessions", type=int, help="of a round's manifest (default: 3 for 2 of its faults)")
    made.add_argument("--per-round", type=int, default=25, help="faults of a round, about (default: 25)")
    return made


def main() -> int:
    arguments = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    sessions = arguments.sessions or max(_SESSIONS, 3 * min(arguments.faults, arguments.per_round) // 2)
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(arguments.faults, arguments.seed, out, arguments.minutes, sessions, arguments.per_round)
    folder = Path(tempfile.mkdtemp(prefix="flc-", dir="/tmp"))
    try:
        play = Play.of(settings, folder)
        asyncio.run(_until_signalled(play))
        write(play)
        print(outcome(play))
        return 0 if not play.problems else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _until_signalled(play: Play) -> None:
    """Run it; SIGTERM and SIGINT end it in order, which leaves no process behind."""
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await play.run()
    except asyncio.CancelledError:
        play.problems.append("interrupted")
    except Exception as error:  # the report says it, with all that was found before
        logging.exception("the chaos run broke")
        play.problems.append(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

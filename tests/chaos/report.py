"""What a chaos run leaves to read: report.json, and a picture of the faults on the timeline of the lanes."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from tests.bench.machine import hardware, versions
from tests.chaos.picture import picture
from tests.chaos.play import Play, Round
from tests.chaos.recovery import recoveries, summary


def write(play: Play) -> None:
    """Judge the run as a whole, and write both files into its folder."""
    if play.unstruck:
        titles = ", ".join(sorted(fault.title for fault in play.unstruck))
        play.problems.append(f"{len(play.unstruck)} faults did not strike: {titles}")
    if len(play.struck) < play.settings.faults:
        play.problems.append(f"only {len(play.struck)} of {play.settings.faults} faults struck")
    out = play.settings.out
    (out / "report.json").write_text(json.dumps(report(play), indent=1))
    (out / "timeline.svg").write_text(picture(play.rounds, play.struck))


def outcome(play: Play) -> str:
    """The run in a few lines."""
    lines = [f"{len(play.struck)} faults struck in {len(play.rounds)} rounds ({play.storage.name}): {_counts(play)}"]
    lines += [f"PROBLEM: {problem}" for problem in play.problems]
    lines.append(f"{'FAILED' if play.problems else 'whole'}; report and picture in {play.settings.out}")
    if play.problems:
        lines.append(f"again: {command(play)}")
    return "\n".join(lines)


def report(play: Play) -> dict[str, Any]:
    return {
        "command": command(play),
        "seed": play.settings.seed,
        "server": play.storage.name,
        "hardware": hardware(),
        "versions": versions(),
        "whole": not play.problems,
        "problems": play.problems,
        "counts": _counts(play),
        "recovery": summary(
            measured
            for made in play.rounds
            for measured in recoveries(
                made.said, [each for each in play.struck if _within(made, each.at)], detached=made.detached
            )
        ),
        "rounds": [_round(play, made) for made in play.rounds],
        "struck": [{**asdict(strike), "time": _clock(strike.at)} for strike in play.struck],
        "unstruck": [asdict(fault) for fault in play.unstruck],
        "schedule": [asdict(fault) for fault in play.schedule],
    }


def command(play: Play) -> str:
    settings = play.settings
    line = f"python -m tests.chaos --faults {settings.faults} --seed {settings.seed} --out {settings.out.name}"
    return f"{line} --sessions {settings.sessions} --per-round {settings.per_round}"


def _round(play: Play, made: Round) -> dict[str, Any]:
    return {
        "number": made.number,
        "output": made.output,
        "detached": made.detached,
        "began": _clock(made.began),
        "seconds": round(made.ended - made.began, 1),
        "verification_seconds": round(made.verified - made.ended, 1),
        "sessions": len(play.work.rows),
        "chunks": sum(play.work.chunks.values()),
        "struck": sum(_within(made, strike.at) for strike in play.struck),
        "starts": [
            {"pid": pid, "seconds": round(end - begin, 1), "status": code} for pid, begin, end, code in made.starts
        ],
        "repaired": made.repaired,
        "readers": made.readers,
        "problems": made.problems,
    }


def _counts(play: Play) -> dict[str, int]:
    return dict(sorted(Counter(strike.fault.title for strike in play.struck).items()))


def _within(made: Round, at: float) -> bool:
    return made.began <= at <= made.verified


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))

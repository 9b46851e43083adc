"""Measure this machine for the planner: seconds of every stage of a preset, without Ray.

python -m jobs.bench profile --preset tiny-gamecraft --out costs.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.exits import Exit, guarded

_STAGES = ("text", "encode", "denoise", "decode", "encode_video")


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(prog="python -m jobs.bench", description="Measure this machine.")
    kinds = made.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("profile", help="stage seconds of a preset, for python -m jobs.plan --costs")
    one.add_argument("--preset", required=True, help="a built-in preset's name, or a preset's YAML file")
    one.add_argument("--out", required=True, metavar="FILE.json", help="where the costs go")
    one.add_argument("--runs", type=_count, default=3, help="runs of each stage that count")
    one.add_argument("--stage", action="append", choices=_STAGES, help="only this one; repeatable (all)")
    one.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override a setting; repeatable")
    return made


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return guarded(lambda: _profile(arguments))


def _profile(arguments: argparse.Namespace) -> int:
    import json

    from gamecraft_core.base.errors import UsageError
    from jobs.config import resolve
    from jobs.profile import profile

    out = Path(arguments.out)
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out.parent} is no folder", field="--out", remedy="make it, or name another")
    preset = resolve(arguments.preset, sets=arguments.set).preset
    costs = profile(preset, arguments.runs, tuple(arguments.stage or _STAGES))
    out.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
    for name, seconds in costs["seconds"].items():
        print(
            f"{name:14} {seconds['median']:10.4f} s  "
            f"(n={seconds['n']}, {seconds['least']:.4f} to {seconds['most']:.4f})"
        )
    print(f"on {costs['hardware']}, in {out}")
    return Exit.ALL_COMMITTED


if __name__ == "__main__":
    sys.exit(main())

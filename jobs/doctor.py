"""An output looked over: is every committed session whole and published, and what lies there that nothing needs.

    python -m jobs.doctor --out out/demo
    python -m jobs.doctor --out s3://BUCKET/PREFIX --repair
    python -m jobs.doctor environment --preset … --fleet …      the machines instead: see ``jobs.checkup.command``

Exit status: 0 healthy or repaired, 1 failure, 2 bad usage or refused, 3 something is wrong and not repaired.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jobs.exits import Exit, guarded

if TYPE_CHECKING:
    from gamecraft_core.dataset.audit import Kind
    from gamecraft_core.dataset.doctor import Diagnosis, Tally

_FOUND = 3
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHOWN = 3


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.doctor",
        description="Check a run's output, and remove what interrupted work has left in it.",
        epilog="`environment` instead of options checks the machines before a run (environment --help). "
        "Exit status: 0 healthy or repaired, 1 failure, 2 bad usage or refused, "
        "3 something is wrong and not repaired.",
    )
    made.add_argument("--out", required=True, metavar="URI", help="a run's output: folder, file:// or s3:// URI")
    made.add_argument("--repair", action="store_true", help="remove orphans; never what a record names")
    made.add_argument("--verify", action="store_true", help="read every video and compare it with its record's sha256")
    made.add_argument(
        "--min-age",
        type=age,
        default="1h",
        metavar="AGE",
        help="leave younger objects of an unfinished run alone: 90s, 30m, 2h, 1d, or 0 if nobody runs it (default: 1h)",
    )
    made.add_argument("--json", action="store_true", help="print the findings as one JSON document")
    made.add_argument("--endpoint-url", help="S3 endpoint (default: AWS_ENDPOINT_URL)")
    return made


def age(text: str) -> int:
    """An age in seconds; ValueError is what argparse reports."""
    found = re.fullmatch(r"(\d{1,9})([smhd])|0", text)
    if found is None:
        raise ValueError(text)
    return int(found[1]) * _SECONDS[found[2]] if found[1] else 0


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    if given and given[0] == "environment":
        from jobs.checkup.command import main as environment

        return environment(given[1:])
    arguments = parser().parse_args(given)
    return guarded(lambda: _examine(arguments))


def _examine(arguments: argparse.Namespace) -> int:
    from gamecraft_core.base.store import open_store
    from gamecraft_core.dataset.doctor import examine

    store = open_store(arguments.out, {"endpoint_url": arguments.endpoint_url})
    diagnosis = examine(
        store, now=time.time(), min_age=arguments.min_age, verify=arguments.verify, repair=arguments.repair
    )
    if arguments.json:
        print(json.dumps({"out": store.root} | _document(diagnosis), indent=2))
    else:
        _show(store.root, diagnosis)
    return Exit.ALL_COMMITTED if diagnosis.healthy else _FOUND


def _document(diagnosis: Diagnosis) -> dict[str, Any]:
    run, audit = diagnosis.run, diagnosis.audit
    return {
        "run": {"run_id": run.run_id, "status": run.status},
        "sessions": {"committed": audit.committed, "failed": audit.failed, "published": audit.published},
        "shards": len(audit.shards),
        "healthy": diagnosis.healthy,
        "findings": [
            {
                "kind": kind.code,
                "what": kind.what,
                "cure": kind.cure,
                "remedy": kind.remedy,
                "count": tally.found,
                "bytes": tally.size,
                "mended": tally.mended,
                "left_young": tally.young,
                "examples": [
                    {"key": each.key, "session_id": each.session, "bytes": each.size, "detail": each.detail}
                    for each in tally.examples
                ],
            }
            for kind, tally in diagnosis.tallies.items()
        ],
    }


def _show(root: str, diagnosis: Diagnosis) -> None:
    """The findings as a table, by kind, with the first of each below."""
    from rich.console import Console
    from rich.table import Table

    run, audit = diagnosis.run, diagnosis.audit
    console = Console()
    table = Table(title=f"run {run.run_id}: {run.status}")
    table.add_column("found")
    table.add_column("count", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("")
    for kind, tally in diagnosis.tallies.items():
        table.add_row(kind.what, f"{tally.found:,}", f"{tally.size:,}" if tally.size else "", _outcome(kind, tally))
    if diagnosis.tallies:
        console.print(table)
    for line in _lines(diagnosis):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{root}: {'healthy' if diagnosis.healthy else 'not healthy'}; {audit.committed} sessions committed, "
        f"{audit.failed} failed, {audit.published} published in {len(audit.shards)} shards",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _outcome(kind: Kind, tally: Tally) -> str:
    said = []
    if tally.young:
        said.append(f"{tally.young:,} younger than --min-age left alone")
    if tally.mended:
        said.append(f"{'removed' if kind.cure == 'remove' else 'made'} {tally.mended:,}")
    elif tally.found:
        words = {"remove": "--repair removes them", "make": "--repair makes them", "none": "damage", "ignore": "kept"}
        said.append(words[kind.cure])
    return "; ".join(said)


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    for kind, tally in diagnosis.tallies.items():
        if kind.remedy and tally.found:
            yield f"{kind.what}: {kind.remedy}"
        for each in tally.examples[:_SHOWN]:
            facts = ", ".join(fact for fact in (each.session, each.detail) if fact)
            key = each.key if each.key.isprintable() else ascii(each.key)
            yield f"  {key}" + (f" ({facts})" if facts else "")
        if tally.found > _SHOWN:
            yield f"  and {tally.found - _SHOWN:,} more"


if __name__ == "__main__":
    sys.exit(main())

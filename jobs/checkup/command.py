"""``python -m jobs.doctor environment``: what would go wrong, told before money is spent.

Exit status: 0 nothing fails (warnings are told), 2 bad usage, 3 something fails.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from gamecraft_core.base.redact import redact
from jobs.exits import Exit, guarded
from jobs.synthesize import add_fleet_options, port

if TYPE_CHECKING:
    from jobs.checkup.finding import Asked, Finding
    from jobs.config import RunConfig

_FAILS = 3
_METRICS_PORT, _SERVICE_PORT = 9108, 8000
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.doctor environment",
        description="Check that a run or service of these settings can work here: on this machine, or on every node.",
        epilog="Exit status: 0 nothing fails, 2 bad usage, 3 something fails.",
    )
    made.add_argument("--preset", default="micro-gamecraft", help="a built-in preset's name, or a preset's YAML file")
    made.add_argument("--out", metavar="URI", help="output to be; a key is put there and removed again")
    add_fleet_options(made)
    made.add_argument("--metrics-port", type=port, metavar="N", help=f"of the run (default: {_METRICS_PORT})")
    made.add_argument("--port", type=port, metavar="N", help=f"of the service (default: {_SERVICE_PORT})")
    made.add_argument("--json", action="store_true", help="print the findings as one JSON document")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return guarded(lambda: _examine(arguments))


def _examine(arguments: argparse.Namespace) -> int:
    from jobs.checkup import gpus, libraries, machine, network, places
    from jobs.checkup.finding import carried_out
    from jobs.config import resolve, with_endpoint

    config = with_endpoint(resolve(arguments.preset, arguments.fleet, arguments.set), os.environ)
    asked = _asked(config, arguments.out)
    checks = (*machine.CHECKS, *gpus.CHECKS, *libraries.CHECKS, *places.CHECKS)
    found = [
        network.port_is_free(name, given or default, needed=bool(given))
        for name, given, default in (
            ("metrics port", arguments.metrics_port, _METRICS_PORT),
            ("service port", arguments.port, _SERVICE_PORT),
        )
    ]
    address = arguments.address or os.environ.get("RAY_ADDRESS")
    if address:
        found += _on_cluster(config, address, asked, checks)
    else:
        found += carried_out(checks, asked)
    failing = any(each.status == "fail" for each in found)
    if arguments.json:
        document = [{name: redact(value) for name, value in asdict(each).items() if name != "same"} for each in found]
        print(json.dumps({"healthy": not failing, "findings": document}, indent=2))
    else:
        _show(found)
    return _FAILS if failing else Exit.ALL_COMMITTED


def _asked(config: RunConfig, out: str | None) -> Asked:
    from jobs.checkup.finding import Asked

    presets = tuple(config.presets.values())
    whole = sum(group.ranks for group in config.fleet.denoise if group.num_gpus > 0.5) * len(presets)
    return Asked(
        presets=presets,
        fleet=config.fleet,
        options=config.store.model_dump(),
        out=out,
        traces=config.telemetry.traces is not None,
        gpus=max(whole, math.ceil(config.fleet.reserved(len(presets))[1])),
    )


def _on_cluster(config: RunConfig, address: str, asked: Asked, checks: Sequence[object]) -> list[Finding]:
    """On every node of the cluster; where it cannot be reached, that, and nothing else."""
    from actors.cluster import connection
    from gamecraft_core.base.errors import FramelaneError
    from jobs.checkup import network
    from jobs.checkup.finding import Finding

    try:
        with connection(address):
            return [Finding("Ray", "ok", f"connected to {address}"), *network.nodes(asked, checks)]  # type: ignore[arg-type]
    except FramelaneError as error:
        return [Finding("Ray", "fail", error.message, error.remedy or "see that the cluster runs")]


def _show(found: Sequence[Finding]) -> None:
    """A table, then what to do, worst first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(title="environment")
    for column in ("check", "where", "", "seen"):
        table.add_column(column, overflow="fold")
    for each in found:
        style = _STYLES[each.status]
        table.add_row(each.name, each.node, Text(each.status, style), Text(redact(each.seen)))
    console.print(table)
    to_do = [each for status in ("fail", "warn") for each in found if each.status == status]
    if to_do:
        console.print("what to do:")
    for each in to_do:
        line = f"  {each.status}  {each.name} ({each.node}): {redact(each.remedy)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

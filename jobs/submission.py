"""A submission to Ray's job API: what is sent, and what comes back.

A job that is stopped gets as long as its own grace lasts, and a margin, before Ray kills it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gamecraft_core.base.errors import FramelaneError, UsageError
from jobs.exits import Exit
from jobs.following import Followed, failures, follow
from jobs.packing import Luggage, pack_code
from jobs.signals import PATIENCE_S

#: What a job may take beyond its grace: its last files, and the watch that ends a process which hangs.
_MARGIN_S = PATIENCE_S + 5
_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the command line asked for; see ``jobs.submit``."""

    job: str
    arguments: tuple[str, ...]
    name: str | None = None
    packs: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    installed: bool = False
    resubmit: int = 0
    detach: bool = False


def submit(what: Submission, address: str | None) -> int:
    """Send the job, and follow it to its end; returns the exit status."""
    grace = _checked(what.job, what.arguments)
    environment = {**_environment(what.environment), "RAY_JOB_STOP_WAIT_TIME_S": str(round(grace + _MARGIN_S))}
    client = _client(address)
    first = what.name or f"framelane-{what.job}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="framelane-") as folder:
        luggage = Luggage(Path(folder), what.packs)
        luggage.pack()
        arguments = luggage.arguments(what.arguments)
        if not what.installed:
            pack_code(Path(folder))
        for path in luggage.left:
            print(f"note: {path} is not packed: the cluster's nodes have to see it", file=sys.stderr)
        for number in range(what.resubmit + 1):
            name = first if number == 0 else f"{first}-{number + 1}"
            _send(client, name, ["python", "-m", "jobs.submitted", what.job, *arguments], folder, environment)
            if what.detach:
                print(name)
                return Exit.ALL_COMMITTED
            ended = asyncio.run(follow(client, name))
            if not ended.lost or ended.stopping:
                break
    return _told(ended, name)


def carry_on(address: str | None, name: str, *, stop: bool) -> int:
    """Follow a job that was submitted before, after asking it to ``stop`` if so; returns its exit status."""
    client = _client(address)
    with _refusals("the job is not there"):
        client.get_job_status(name)
    return _told(asyncio.run(follow(client, name, stop=stop)), name)


def _checked(job: str, arguments: Sequence[str]) -> float:
    """Refuse here what the job would refuse there; the seconds of grace that its settings give it."""
    made, rest = importlib.import_module(f"jobs.{job}").parser(), list(arguments)
    if job == "doctor" and rest[:1] == ["environment"]:
        made, rest = importlib.import_module("jobs.checkup.command").parser(), rest[1:]
    made.allow_abbrev = False  # a shortened option would not be seen for what it is when paths are packed
    given = made.parse_args(rest)
    if not hasattr(given, "preset"):
        return 0.0
    from jobs.config import resolve

    grace: float = resolve(given.preset, given.fleet, given.set).limits.grace_seconds
    return grace


def _environment(wanted: Sequence[str]) -> dict[str, str]:
    found = {}
    for each in wanted:
        name, equals, value = each.partition("=")
        if not equals and name not in os.environ:
            raise UsageError(f"{name} is not set here", field="env", remedy=f"give --env {name}=VALUE")
        found[name] = value if equals else os.environ[name]
    return found


def _client(address: str | None) -> Any:
    import logging

    from ray.job_submission import JobSubmissionClient

    with _refusals("no cluster takes jobs there"):
        client = JobSubmissionClient(address)
    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of every upload, and of weights that are large
    return client


def _send(client: Any, name: str, command: Sequence[str], folder: str, environment: dict[str, str]) -> None:
    with _refusals("the cluster refuses the job"):
        client.submit_job(
            entrypoint=f"exec {shlex.join(command)}",  # no shell between Ray's signals and the job
            submission_id=name,
            runtime_env={"working_dir": folder, "env_vars": environment},
        )
    print(f"submitted {name}", file=sys.stderr)


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """What the job API's client raises, as one line for the user."""
    wrong: tuple[type[Exception], ...] = (*failures(), ValueError)
    try:
        yield
    except wrong as error:
        reason = str(error).strip().splitlines()
        told = next((line for line in reversed(reason) if line.strip()), type(error).__name__)
        raise UsageError(
            f"{what}: {told[:_SHOWN]}", field="address", remedy="give http://HEAD:8265 of a cluster with its dashboard"
        ) from error


def _told(ended: Followed, name: str) -> int:
    if ended.lost:
        raise FramelaneError(
            f"{name} was lost, {ended.state.lower()}: {ended.message}",
            remedy="the same submission goes on where it was",
        )
    return ended.exit_status

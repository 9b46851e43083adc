"""A job sent to a Ray cluster: its code packed, its log followed, its exit status brought home.

    python -m jobs.submit --address http://HEAD:8265 synthesize --preset … --manifest s3://… --out s3://…

Exit status: the job's own; 1 also where the job's process was lost, 2 also where the submission is refused.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from jobs.exits import guarded
from jobs.submitted import JOBS

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.submit",
        description="Run a job on a Ray cluster. Its code travels along; manifests, inputs and outputs do not: give "
        "URIs, or paths that every node sees. Interrupted (Ctrl-C, SIGTERM), it stops the job in order.",
        epilog="Exit status: the job's own; 1 where the job's process was lost. Submitted again with the same manifest "
        "and output, a job goes on where it was.",
    )
    made.add_argument(
        "--address", help="the cluster's job API, http://HEAD:8265 (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS)"
    )
    made.add_argument("--name", help="the submission's id; default: made of the job's name and the time")
    made.add_argument("--pack", action="append", default=[], metavar="PATH", help="file or folder that travels along")
    made.add_argument(
        "--env", action="append", default=[], type=variable, metavar="NAME[=VALUE]",
        help="environment of the job and its lanes, by value or from here; the dashboard shows it",
    )  # fmt: skip
    made.add_argument("--installed", action="store_true", help="run what the cluster has installed, pack no code")
    made.add_argument(
        "--resubmit", type=int, default=0, metavar="N", help="submit up to N times more where the job's process is lost"
    )
    made.add_argument("--detach", action="store_true", help="say the submission's id, and do not wait")
    known = made.add_mutually_exclusive_group()
    known.add_argument("--follow", metavar="ID", help="follow a job that was submitted before")
    known.add_argument("--stop", metavar="ID", help="stop a job in order, and follow it to its end")
    made.add_argument("job", nargs="?", choices=JOBS, help="which job; what comes after are its own options")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def variable(text: str) -> str:
    """NAME or NAME=VALUE; ValueError is what argparse reports."""
    if not _NAME.fullmatch(text.partition("=")[0]):
        raise ValueError(text)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    made = parser()
    arguments = made.parse_args(argv)
    if bool(arguments.job) == bool(arguments.follow or arguments.stop):
        made.error("name a job, or --follow ID, or --stop ID")

    def submission() -> int:
        from jobs.submission import Submission, carry_on, submit

        if arguments.job is None:
            return carry_on(arguments.address, arguments.follow or arguments.stop, stop=bool(arguments.stop))
        return submit(
            Submission(
                job=arguments.job,
                arguments=tuple(arguments.arguments),
                name=arguments.name,
                packs=tuple(arguments.pack),
                environment=tuple(arguments.env),
                installed=arguments.installed,
                resubmit=arguments.resubmit,
                detach=arguments.detach,
            ),
            arguments.address,
        )

    return guarded(submission)


if __name__ == "__main__":
    sys.exit(main())

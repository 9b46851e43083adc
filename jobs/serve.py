"""The service: a page and an API on which people walk through worlds while they are made.

    python -m jobs.serve --port 8000

It goes on until it is told to stop (SIGTERM, Ctrl-C): then nothing new is accepted, what is denoised is made durable,
and the same command takes every session up where it was. With ``--on serve`` it is an application on Ray Serve (see
``jobs.gateway``). Exit status: 0 stopped, 1 failure, 2 bad usage or refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.exits import guarded
from jobs.synthesize import add_fleet_options, port


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.serve",
        description="Serve the page and the API, on a local Ray cluster or an existing one.",
    )
    made.add_argument("--preset", default="micro-gamecraft", help="a built-in preset's name, or a preset's YAML file")
    made.add_argument("--out", default="out/serve", help="folder or URI where sessions and videos are kept")
    made.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; another than this machine needs --tokens"
    )
    made.add_argument("--port", type=port, default=8000, metavar="N", help="0 takes a free one")
    made.add_argument(
        "--on",
        choices=("process", "serve"),
        default="process",
        help="a web server of this process, or Ray Serve's, which listens on --host and --port unless it runs already",
    )
    made.add_argument("--tokens", metavar="FILE", help="who may come in: lines of TENANT TOKEN")
    made.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="origin of a page that may use the API"
    )
    add_fleet_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)

    def job() -> int:
        from jobs.config import resolve
        from jobs.service import Place, serve

        if arguments.on == "serve":
            from jobs.gateway import serve

        config = resolve(arguments.preset, arguments.fleet, arguments.set)
        place = Place(arguments.host, arguments.port, arguments.tokens, tuple(arguments.origin))
        return serve(config, arguments.out, place, arguments.address)

    return guarded(job)


if __name__ == "__main__":
    sys.exit(main())

"""Dataset synthesis: a manifest of sessions becomes a dataset of videos with Arrow metadata.

    python -m jobs.synthesize --preset micro-gamecraft --manifest jobs/demo/micro/manifest.jsonl --out out/demo

Exit status: 0 every row committed, 1 failure, 2 bad usage or refused, 3 some rows failed, 4 stopped and resumable.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.exits import guarded


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.synthesize",
        description="Turn a manifest of sessions (JSONL, CSV or Parquet) into a dataset of videos with Arrow metadata.",
        epilog="Exit status: 0 all rows committed, 1 failure, 2 bad usage or refused, 3 some rows failed, "
        "4 stopped and resumable (run the same command again).",
    )
    made.add_argument("--preset", required=True, help="a built-in preset's name, or a preset's YAML file")
    made.add_argument("--manifest", required=True, help="path or URI of the manifest: one session a row")
    made.add_argument("--out", required=True, help="output folder or URI (file://, s3://BUCKET/PREFIX)")
    add_run_options(made)
    made.add_argument("--run-id", help="name of the run; default: derived from manifest and settings")
    made.add_argument("--strict", action="store_true", help="refuse the run when any row is wrong")
    made.add_argument("--keep-latents", action="store_true", help="store every chunk's latents beside its video")
    return made


def add_run_options(made: argparse.ArgumentParser) -> None:
    """Options that every job that runs to an end takes."""
    add_fleet_options(made)
    made.add_argument(
        "--metrics-port", type=port, default=9108, metavar="N", help="Prometheus port; 0 takes a free one"
    )


def add_fleet_options(made: argparse.ArgumentParser) -> None:
    """Options of everything that runs on a fleet."""
    made.add_argument("--fleet", default="laptop", help="a built-in fleet's name, or a fleet's YAML file")
    made.add_argument("--address", help="an existing Ray cluster (default: RAY_ADDRESS, else a local one on demand)")
    made.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override a setting; repeatable")


def port(text: str) -> int:
    """A TCP port, or 0 for a free one; ValueError is what argparse reports."""
    number = int(text)
    if not 0 <= number < 65536:
        raise ValueError(text)
    return number


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)

    def job() -> int:
        from jobs.config import resolve
        from jobs.run import Request, run

        config = resolve(arguments.preset, arguments.fleet, arguments.set, keep_latents=arguments.keep_latents)
        return run(
            Request(
                config=config,
                manifest=arguments.manifest,
                out=arguments.out,
                address=arguments.address,
                run_id=arguments.run_id,
                strict=arguments.strict,
                metrics_port=arguments.metrics_port,
            )
        )

    return guarded(job)


if __name__ == "__main__":
    sys.exit(main())

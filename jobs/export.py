"""A run's output in the layout of a training tool: Hugging Face videofolder, WebDataset, or LeRobot 3.0.

    python -m jobs.export out/demo --format webdataset --to out/demo-webdataset

Exit status: 0 exported, 1 failure, 2 bad usage or refused.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from jobs.exits import guarded

FORMATS = ("videofolder", "webdataset", "lerobot")


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.export", description="Rewrite a run's committed sessions in the layout of a training tool."
    )
    made.add_argument("out", metavar="OUT", help="a run's output: folder or URI (file://, s3://BUCKET/PREFIX)")
    made.add_argument("--format", required=True, choices=FORMATS, help="layout to write")
    made.add_argument("--to", metavar="DIR", help="target folder or URI, empty so far (default: OUT-FORMAT)")
    made.add_argument("--size", type=size, metavar="HxW", help="only sessions of this height and width in pixels")
    made.add_argument("--endpoint-url", help="S3 endpoint of both (default: AWS_ENDPOINT_URL)")
    return made


def size(text: str) -> tuple[int, int]:
    """``HxW`` in pixels; ValueError is what argparse reports."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise ValueError(text)
    return int(found[1]), int(found[2])


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return guarded(lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> int:
    from gamecraft_core.base.store import open_store
    from gamecraft_core.dataset.export import export
    from jobs.exits import Exit

    options = {"endpoint_url": arguments.endpoint_url}
    to = arguments.to or f"{arguments.out.rstrip('/')}-{arguments.format}"
    target = open_store(to, options)
    done = export(open_store(arguments.out, options), target, arguments.format, arguments.size)
    why = "of other sizes" + (" or without a camera" if arguments.format == "lerobot" else "")
    left_out = f"; {done.left_out} {why} left out" if done.left_out else ""
    print(f"{done.sessions} sessions, {done.frames} frames as {arguments.format} at {target.root}{left_out}")
    return Exit.ALL_COMMITTED


if __name__ == "__main__":
    sys.exit(main())

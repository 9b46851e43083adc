"""An official checkpoint becomes safetensors shards with an index and a fingerprint.

    python -m jobs.convert weights/gamecraft_models/mp_rank_00_model_states.pt s3://bucket/gamecraft

It streams: memory does not grow with the checkpoint. Interrupted at any point, the same command resumes. The result is
named by ``weights.dit`` or ``weights.vae`` like the original. Exit status: 0 done, 1 failure, 2 bad usage or refused,
4 interrupted and resumable.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.exits import Exit, guarded

if TYPE_CHECKING:
    from gamecraft_core.weights.source import Source

_MAX_SHARD_BYTES = 5 * 10**9
_SIZE = re.compile(r"(\d+)\s*([KMG]i?)?B?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.convert",
        description="Turn an official GameCraft checkpoint into safetensors shards with an index and a fingerprint.",
        epilog="The same command resumes an interrupted conversion. "
        "Exit status: 0 done, 1 failure, 2 bad usage or refused, 4 interrupted and resumable.",
    )
    made.add_argument("src", metavar="SRC", help="file or folder of the checkpoint (path or s3:// URI)")
    made.add_argument("dst", metavar="DST", help="folder or s3:// URI for the shards")
    made.add_argument("--kind", choices=("dit", "vae"), help="transformer or VAE (default: seen from the keys)")
    made.add_argument(
        "--max-shard-bytes", type=size, default=_MAX_SHARD_BYTES, metavar="SIZE", help="at most 5GB (default: 5GB)"
    )
    made.add_argument(
        "--dtype",
        choices=("keep", "float32", "bfloat16", "float16", "fp8"),
        default="keep",
        help="type of the stored values; fp8 (approximate): e4m3 for the blocks' linears, the rest as it is",
    )
    return made


def size(text: str) -> int:
    """Bytes of ``5GB``, ``256MiB`` or a plain number; at most 5 GB."""
    found = _SIZE.fullmatch(text.strip())
    count = int(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0
    if not 0 < count <= _MAX_SHARD_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 1 byte to 5GB, such as 256MB")
    return count


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return guarded(lambda: _convert(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    from gamecraft_core.base import logs
    from gamecraft_core.weights.convert import convert
    from gamecraft_core.weights.readers import detect_kind, open_dit, open_vae

    logs.setup()
    kind = arguments.kind or detect_kind(arguments.src)
    source = _in_type(open_dit(arguments.src) if kind == "dit" else open_vae(arguments.src), arguments.dtype)
    settings = {"kind": kind, "dtype": arguments.dtype}
    total = sum(entry.nbytes for entry in source.entries.values())
    with _display(total) as note:
        fingerprint = convert(source, settings, arguments.dst, arguments.max_shard_bytes, note=note)
    print(f"{kind}: {len(source.entries)} tensors, {total} bytes, fingerprint {fingerprint}: {arguments.dst}")
    return Exit.ALL_COMMITTED


def _in_type(source: Source, dtype: str) -> Source:
    import torch

    from gamecraft_core.weights.quantise import linear_names, quantised

    if dtype == "keep":
        return source
    return quantised(source, linear_names(source)) if dtype == "fp8" else source.cast(getattr(torch, dtype))


@contextmanager
def _display(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere the log's line for each shard is enough."""
    if not sys.stderr.isatty():
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("convert", total=total)
        yield lambda size: progress.advance(task, size)


if __name__ == "__main__":
    sys.exit(main())

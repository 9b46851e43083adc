"""Train the micro world from nothing to weights, on scenes rendered on the fly:

    python -m jobs.micro_world --out out/micro

Stages: vae, then dit; the text encoders are the preset's own and stay as they are. Every stage keeps a checkpoint in
OUT and logs its losses there (vae.jsonl, dit.jsonl). SIGTERM or Ctrl-C saves and ends; the same command goes on. With
--from-weights a stage without a checkpoint starts from the preset's published weights instead of drawn ones. The
result is OUT/vae.safetensors and OUT/dit.safetensors, in bf16. Exit status: 0 trained, 1 failure, 2 bad usage or
refused, 4 stopped and resumable.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.exits import guarded

STAGES = ("vae", "dit")


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.micro_world",
        description="Train the micro world's VAE and transformer on scenes rendered on the fly.",
        epilog="SIGTERM saves a checkpoint; the same command goes on. "
        "Exit status: 0 trained, 1 failure, 2 bad usage or refused, 4 stopped and resumable.",
    )
    made.add_argument("--out", required=True, help="local folder for checkpoints, logs and weights")
    made.add_argument("--preset", default="micro-gamecraft", help="whose sizes to train (default: micro-gamecraft)")
    made.add_argument("--stage", choices=STAGES, action="append", help="only this stage; repeatable (default: all)")
    made.add_argument("--from-weights", action="store_true", help="start from the preset's published weights")
    made.add_argument("--vae-steps", type=count, default=1600, metavar="N", help="default: 1600")
    made.add_argument("--dit-steps", type=count, default=40000, metavar="N", help="default: 40000")
    made.add_argument(
        "--pool", type=count, default=1000, metavar="N", help="sessions learnt from at a time (default: 1000)"
    )
    made.add_argument("--seed", type=int, default=1, help="of weights and data (default: 1)")
    made.add_argument("--threads", type=count, default=1, metavar="N", help="of the training process (default: 1)")
    made.add_argument(
        "--processes", type=whole, default=1, metavar="N", help="that render and encode ahead (default: 1)"
    )
    made.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of matmuls")
    return made


def count(text: str) -> int:
    """A number from 1; ValueError is what argparse reports."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def whole(text: str) -> int:
    """A number from 0."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)

    def job() -> int:
        from jobs.micro_world.train import Plan, train_all

        stages = tuple(stage for stage in STAGES if not arguments.stage or stage in arguments.stage)
        return train_all(
            Plan(
                preset=arguments.preset,
                out=arguments.out,
                stages=stages,
                from_weights=arguments.from_weights,
                vae_steps=arguments.vae_steps,
                dit_steps=arguments.dit_steps,
                pool=arguments.pool,
                seed=arguments.seed,
                threads=arguments.threads,
                processes=arguments.processes,
                bf16=arguments.precision == "bfloat16",
            )
        )

    return guarded(job)


if __name__ == "__main__":
    sys.exit(main())

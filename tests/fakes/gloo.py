"""Starts real ranks: processes on this machine joined by gloo, each running one function."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RankFunction = Callable[..., Any]


def run_ranks(world: int, function: RankFunction, folder: Path, *args: Any) -> list[Any]:
    """``function(rank, *args)`` in ``world`` processes of one gloo group; its tensors, by rank.

    ``function`` lives in an importable module. ``folder`` is fresh: it holds the rendezvous and the results. A rank's
    exception is raised here, and then no rank is left running.
    """
    # One server imports torch and forks every rank: eight imports side by side cost most of a minute on two cores.
    multiprocessing.set_forkserver_preload(["torch", "torch.distributed", "numpy", "pydantic"])
    mp.start_processes(  # type: ignore[attr-defined, no-untyped-call]
        _rank, (world, function, str(folder), args), nprocs=world, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _rank(rank: int, world: int, function: RankFunction, folder: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        torch.save(function(rank, *args), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()

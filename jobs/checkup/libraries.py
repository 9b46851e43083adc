"""Checks of what is compiled: that ranks can meet in a collective, and that attention kernels import."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from jobs.checkup.finding import Asked, Finding

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 45.0
_LINE = 200

#: Modules that a value of ``runtime.attention`` needs.
_KERNELS = {"flash": "flash_attn", "sage": "sageattention"}


def collectives(asked: Asked, timeout_s: float = _TIMEOUT_S) -> Finding:
    """An all-reduce in processes of its own: NCCL over the GPUs here, gloo between two where there are none."""
    if asked.most_ranks < 2:
        return Finding("", "skipped", "no group of several ranks is asked for")
    on_gpus = shutil.which("nvidia-smi") is not None and asked.gpus > 1
    backend, world = ("nccl", asked.gpus) if on_gpus else ("gloo", 2)
    started = time.monotonic()
    wrong = _all_reduce(backend, world, started + timeout_s)
    seen = f"{backend} between {world} processes"
    if wrong:
        remedy = "run with NCCL_DEBUG=INFO; see /dev/shm, links and NCCL_SOCKET_IFNAME" if on_gpus else "see the error"
        return Finding("", "fail", f"{seen}: {wrong}", remedy)
    return Finding("", "ok", f"{seen}: {time.monotonic() - started:.1f} s, start included")


def _all_reduce(backend: str, world: int, deadline: float) -> str:
    """What went wrong, "" for nothing. No process is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "jobs.checkup.all_reduce"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(world), address, backend],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    wrong = ""
    try:
        for number, rank in enumerate(ranks):
            _, said = rank.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if rank.returncode:
                wrong = wrong or f"rank {number} ended with {rank.returncode}: {_last_line(said)}"
    except subprocess.TimeoutExpired:
        wrong = wrong or f"rank {number} has not ended in time"
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    return wrong


def attention_kernels(asked: Asked) -> Finding:
    """Imported in a process of its own: what is compiled for another torch can take its importer along."""
    if not asked.has_lanes:
        return Finding("", "skipped", "lanes that use them want a GPU, and this node has none")
    wanted = {_KERNELS[preset.runtime.attention] for preset in asked.presets if preset.runtime.attention in _KERNELS}
    if any(group.ring_degree > 1 for group in asked.fleet.denoise):
        wanted.add("xfuser")
    if not wanted:
        return Finding("", "skipped", "neither the presets nor the fleet ask for a library of their own")
    for module in sorted(wanted):
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            remedy = f"install {module.replace('_', '-')} for this torch (the gpu extra, or our image), or set runtime."
            return Finding("", "fail", f"{module}: {_last_line(done.stderr)}", f"{remedy}attention=auto")
    return Finding("", "ok", f"{', '.join(sorted(wanted))} can be imported")


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["no word"])[-1][:_LINE]


CHECKS = (collectives, attention_kernels)

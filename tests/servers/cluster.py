"""A real local Ray cluster for the tests, in a folder of its own, of which no process outlives the tests."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMESPACE = "framelane-tests"

#: The accelerator that the cluster says it has.
ACCELERATOR = "EMULATED"

_LOGICAL_CPUS = 8
_OBJECT_STORE_BYTES = 512 << 20
_GONE_TIMEOUT_S = 30.0

#: The memory monitor would kill our actors when some other process fills the machine; token authentication would
#: write a token into the user's home that later clusters then demand.
ENV = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
}


@dataclass(frozen=True)
class RayCluster:
    """``address`` lets another process join; it needs ENV in its environment. ``folder`` holds logs and sockets."""

    address: str
    namespace: str
    folder: Path


@contextmanager
def local_cluster(root: Path, *, cpus: int = _LOGICAL_CPUS, gpus: int | None = None) -> Iterator[RayCluster]:
    """Start Ray with this process connected; its processes import the project from ``root``.

    ``cpus`` and ``gpus`` are what Ray believes to have.
    """
    import ray

    folder = Path(tempfile.mkdtemp(prefix="fl-ray-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in ENV.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(root))
        ray.init(
            include_dashboard=False,
            num_cpus=cpus,
            num_gpus=gpus,
            object_store_memory=_OBJECT_STORE_BYTES,
            resources={f"accelerator_type:{ACCELERATOR}": 1},
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace=NAMESPACE,
            _temp_dir=str(folder),
        )
        try:
            yield RayCluster(ray.get_runtime_context().gcs_address, NAMESPACE, folder)
        finally:
            ray.shutdown()
            left = _await_gone(folder)
            shutil.rmtree(folder, ignore_errors=True)
    if left:
        raise RuntimeError(f"processes of the Ray cluster outlived it and were killed: {left}")


def _await_gone(folder: Path) -> dict[int, str]:
    """Wait until no process uses the Ray session's folder; kill and return those that stay."""
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    while (left := processes_using(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def processes_using(folder: Path) -> dict[int, str]:
    """Other processes that name ``folder`` on their command line or hold a file in it open: pid to command line.

    Ray's own workers rewrite their command lines, but their output goes to logs in the folder.
    """
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            names = [command, *(os.readlink(link) for link in (entry / "fd").iterdir())]
            if int(entry.name) != os.getpid() and any(str(folder) in name for name in names):
                found[int(entry.name)] = command[:200]
    return found

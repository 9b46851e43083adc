"""A real Ray cluster that grows and shrinks: autoscaler v2 over Ray's fake provider, whose nodes are processes here.

The head has room for nothing but what asks for little; nodes of one kind come when something waits for room, and go
when they have been idle. All in a folder and on ports of its own; no process of it outlives the block.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.servers.child import free_port
from tests.servers.cluster import ENV, processes_using

#: Ray's fake provider gives nodes their ids, the head's first; cloud and cluster then call a node the same.
_HEAD_ID = "f" * 51 + "00000"
_STORE_BYTES = 100 << 20
_READY_TIMEOUT_S = 60.0
_GONE_TIMEOUT_S = 30.0

_AUTOSCALING = {
    **ENV,
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "0",
}


@contextmanager
def autoscaling_cluster(
    root: Path, *, head_cpus: int, node_cpus: int, nodes: int, idle_seconds: float
) -> Iterator[str]:
    """The address of a cluster of a head and up to ``nodes`` nodes; its processes import the project from ``root``."""
    folder = Path(tempfile.mkdtemp(prefix="fl-as-", dir="/tmp"))  # sockets live in it: its path has to be short
    port = free_port()
    address = f"127.0.0.1:{port}"
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_config(address, head_cpus, node_cpus, nodes, idle_seconds)))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += [f"--autoscaling-config={config}", f"--temp-dir={folder}", f"--num-cpus={head_cpus}"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--object-store-memory={_STORE_BYTES}"]
    env = {**os.environ, **_AUTOSCALING, "PYTHONPATH": str(root)}
    env.pop("RAY_ADDRESS", None)
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        _await_head(head, folder)
        yield address
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(_GONE_TIMEOUT_S)
        _end_nodes(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _config(address: str, head_cpus: int, node_cpus: int, nodes: int, idle_seconds: float) -> dict[str, object]:
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": address,
        "head_node_id": _HEAD_ID,
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    node = {"CPU": node_cpus, "object_store_memory": _STORE_BYTES}
    return {
        "cluster_name": "framelane-tests",
        "max_workers": nodes,
        "idle_timeout_minutes": idle_seconds / 60,
        "upscaling_speed": 10.0,
        "provider": provider,
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0},
            "node": {"resources": node, "node_config": {}, "min_workers": 0, "max_workers": nodes},
        },
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "auth": {},
    }


def _await_head(head: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    log = folder / "head.log"
    while b"Ray runtime started" not in log.read_bytes():
        if head.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the head did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def _end_nodes(folder: Path) -> None:
    """The provider's nodes are children of nobody; once their head is gone nothing is lost with them."""
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    while left := processes_using(folder):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes of the Ray cluster do not end: {left}")
        time.sleep(0.1)

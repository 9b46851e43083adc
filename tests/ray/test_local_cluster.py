"""The session's cluster itself: real processes, the project importable there, and joinable by address."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tests.servers.cluster import ENV, RayCluster

pytestmark = pytest.mark.ray

JOIN = """
import sys, ray
ray.init(address=sys.argv[1], namespace=sys.argv[2], log_to_driver=False, logging_level="ERROR")
print(ray.get(ray.get_actor("landmark").pid.remote()))
"""


def test_another_process_joins_by_address(ray_cluster: RayCluster) -> None:
    import ray

    class Landmark:
        """An actor that tells where it lives, through the project's own code."""

        def pid(self) -> int:
            from gamecraft_core.base.ids import check_id

            return int(check_id(str(os.getpid())))

    actor: Any = ray.remote(num_cpus=1)(Landmark)
    landmark = actor.options(name="landmark").remote()
    try:
        pid = ray.get(landmark.pid.remote())
        assert pid != os.getpid()
        command = [sys.executable, "-c", JOIN, ray_cluster.address, ray_cluster.namespace]
        joined = subprocess.run(command, env={**os.environ, **ENV}, capture_output=True, text=True, timeout=60)
        assert joined.returncode == 0, joined.stderr
        assert int(joined.stdout) == pid
    finally:
        ray.kill(landmark)

"""The job as a child process of a test, and the processes of its lanes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.ray.runs import ROOT, SMALL, Finished, manifest
from tests.servers.cluster import RayCluster


class Started:
    """The job as a process of its own on the tests' cluster. ``ready`` returns when its fleet is warm."""

    def __init__(
        self, folder: Path, cluster: RayCluster, rows: Sequence[Mapping[str, Any]], fleet: str, *settings: str
    ) -> None:
        self.out = folder / "out"
        argv = [sys.executable, "-m", "jobs.synthesize", "--preset", "tiny-gamecraft", "--fleet", fleet]
        argv += ["--manifest", str(manifest(folder, rows)), "--out", str(self.out), "--metrics-port", "0"]
        argv += ["--address", cluster.address]
        for setting in (*SMALL, *settings):
            argv += ["--set", setting]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(argv, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []

    def ready(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if "metrics at" in line:
                return
        raise AssertionError("".join(self.said))

    def end(self) -> Finished:
        assert self.process.stderr is not None
        with self.process:
            self.said += self.process.stderr.readlines()
        return Finished(self.process.returncode, self.out)


def processes_titled(title: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(title.encode()):
                found.append(int(path.parent.name))
    return found

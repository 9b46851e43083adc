"""What checks are asked, and a node whose ``nvidia-smi`` answers what a test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.checkup.finding import Asked
from jobs.config import load_fleet, load_preset

#: As ``nvidia-smi topo -m`` prints it for four GPUs of which two pairs share a switch; its head is underlined.
TOPOLOGY = """\t\033[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\033[0m
GPU0\t X \tPIX\tSYS\tSYS\tNODE\t0-31,64-95\t0\t\tN/A
GPU1\tPIX\t X \tSYS\tSYS\tNODE\t0-31,64-95\t0\t\tN/A
GPU2\tSYS\tSYS\t X \tPIX\tSYS\t32-63,96-127\t1\t\tN/A
GPU3\tSYS\tSYS\tPIX\t X \tSYS\t32-63,96-127\t1\t\tN/A
NIC0\tNODE\tNODE\tSYS\tSYS\t X \t\t\t\t

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
"""

HEAD = """Sun Nov 22 15:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI {driver}             Driver Version: {driver}     CUDA Version: {cuda}     |
|-----------------------------------------+------------------------+----------------------+
"""

Smi = Callable[..., None]


@pytest.fixture
def asked() -> Asked:
    return Asked((load_preset("tiny-gamecraft"),), load_fleet("laptop"))


@pytest.fixture
def big() -> Asked:
    """The released model on a node of eight."""
    return Asked((load_preset("gamecraft"),), load_fleet("8xa100-latency"), gpus=8)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Puts a program first on PATH that answers the three questions as the real one does."""

    def install(*gpus: str, topology: str = TOPOLOGY, cuda: str = "12.8", driver: str = "570.86.15") -> None:
        answers = {"query": "\n".join(gpus), "topo": topology, "head": HEAD.format(driver=driver, cuda=cuda)}
        for name, text in answers.items():
            (tmp_path / name).write_text(text)
        program = tmp_path / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\ncase "$1" in --query*) /bin/cat {tmp_path}/query;; topo) /bin/cat {tmp_path}/topo;; '
            f"*) /bin/cat {tmp_path}/head;; esac\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return install

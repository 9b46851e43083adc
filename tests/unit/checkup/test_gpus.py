"""GPUs as ``nvidia-smi`` tells of them, and libraries that they need."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.checkup import gpus, libraries
from jobs.checkup.finding import Asked
from tests.unit.checkup.conftest import TOPOLOGY, Smi

A100 = "NVIDIA A100-SXM4-80GB, 81920, 570.86.15, 8.0"
L4 = "NVIDIA L4, 23034, 570.86.15, 8.9"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever GPUs the machine has, until a test says otherwise."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_where_no_gpu_is_wanted_or_there_nothing_is_said(asked: Asked) -> None:
    assert {check(asked).status for check in gpus.CHECKS} == {"skipped"}


def test_too_few_gpus_and_unequal_ones_are_told(big: Asked, smi: Smi) -> None:
    assert gpus.gpus(big).status == "fail"
    smi(*[A100] * 8)
    assert gpus.gpus(big).status == "ok"
    smi(*[A100] * 7, L4)
    assert gpus.gpus(big).status == "warn"
    smi(*[A100] * 3)
    assert "3 of 8 GPUs" in gpus.gpus(big).seen


def test_a_model_that_does_not_fit_is_refused_with_what_it_takes(big: Asked, smi: Smi) -> None:
    smi(*[A100] * 8)
    assert gpus.gpu_memory(big).status == "ok", gpus.gpu_memory(big).seen
    smi(*[L4] * 8)
    small = gpus.gpu_memory(big)
    assert small.status == "fail"
    assert "of 21.5 GiB" in small.seen
    assert "runtime.offload" in small.remedy


def test_links_are_read_from_the_lower_half_of_the_matrix() -> None:
    assert gpus.links(TOPOLOGY) == {"PIX": [(0, 1), (2, 3)], "SYS": [(0, 2), (1, 2), (0, 3), (1, 3)]}
    assert gpus.links("no devices") == {}


def test_a_group_over_pcie_is_warned_of(big: Asked, smi: Smi) -> None:
    smi(*[A100] * 4)
    slow = gpus.gpu_links(big)
    assert (slow.status, slow.seen) == ("warn", "2 pairs by PIX, 4 pairs by SYS")
    smi(*[A100] * 4, topology=TOPOLOGY.replace("PIX", "NV12").replace("SYS", "NV12"))
    assert gpus.gpu_links(big).status == "ok"


@pytest.mark.parametrize(
    ("knows", "built", "status"),
    [("12.8", "12.4", "ok"), ("12.2", "12.8", "ok"), ("12.8", "13.0", "fail"), ("12.8", "", "fail")],
)
def test_an_old_driver_is_told(big: Asked, smi: Smi, knows: str, built: str, status: str) -> None:
    smi(A100, cuda=knows)
    assert gpus.gpu_driver(big, built).status == status


def test_fp8_wants_units_for_it(big: Asked, smi: Smi) -> None:
    (preset,) = big.presets
    wants = replace(
        big, presets=(preset.model_copy(update={"runtime": preset.runtime.model_copy(update={"fp8": True})}),)
    )
    smi(L4)
    assert gpus.fp8(wants).status == "ok"
    smi(A100)
    assert gpus.fp8(wants).status == "fail"
    assert "8.0" in gpus.fp8(wants).seen


def test_a_collective_really_runs_and_a_rank_that_cannot_is_told(big: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    met = libraries.collectives(replace(big, gpus=0))
    assert met.status == "ok", met.seen
    assert met.seen.startswith("gloo between 2 processes")
    late = libraries.collectives(replace(big, gpus=0), timeout_s=0.2)
    assert late.status == "fail"
    assert "has not ended in time" in late.seen
    monkeypatch.setattr(sys, "executable", "/bin/false")
    broken = libraries.collectives(replace(big, gpus=0))
    assert (broken.status, "rank 0 ended with 1" in broken.seen) == ("fail", True)


def test_a_kernel_that_is_asked_for_and_not_there_is_told(asked: Asked) -> None:
    (preset,) = asked.presets
    runtime = preset.runtime.model_copy(update={"attention": "sage"})
    missing = libraries.attention_kernels(replace(asked, presets=(preset.model_copy(update={"runtime": runtime}),)))
    assert missing.status == "fail"
    assert "No module named 'sageattention'" in missing.seen
    assert "runtime.attention=auto" in missing.remedy

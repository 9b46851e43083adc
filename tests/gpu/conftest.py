"""Every test here needs a CUDA device and skips itself, by name, where there is none."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def cuda() -> torch.device:
    """The first GPU, with nothing of an earlier test on it."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.device("cuda", 0)


@pytest.fixture
def two_gpus(cuda: torch.device) -> int:
    """How many GPUs there are, at least two."""
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip("one CUDA device here, two are needed")
    return count

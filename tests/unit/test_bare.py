"""The bare work that bench-core compares with: what is recorded, what it amounts to, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.layers import Linear
from tests.bench.bare import Replay, record
from tests.bench.bench_core import SIZES, dit_forward, useful_flops


@torch.inference_mode()
def test_calls_are_recorded_with_what_they_cost() -> None:
    x, heads, clip = torch.randn(5, 6), torch.randn(1, 2, 7, 4), torch.randn(1, 3, 4, 5, 6)
    linear, kernel = Linear(6, 8).requires_grad_(False), torch.randn(2, 3, 3, 3, 3)

    def work() -> None:
        linear(x).add_(1)
        linear.gelu(x, 2)
        F.scaled_dot_product_attention(heads[:, :, :3], heads, heads)
        F.conv3d(clip, kernel, stride=(1, 1, 2))

    calls = record(work)
    assert [call.kind for call in calls] == ["matmul", "matmul", "attention", "convolution"]
    assert [call.flops for call in calls] == [
        2 * 5 * 6 * 8,
        2 * 5 * 6 * 6,
        2 * 2 * (2 * 3 * 7 * 4),
        2 * (2 * 3 * 27) * (2 * 3 * 2),
    ]
    replay = Replay(calls)
    assert sum(replay.layouts.values()) == len(calls)
    with pytest.raises(NotImplementedError, match="not counted"):
        record(lambda: x @ x.T)
    assert record(replay) == calls


def test_the_forward_does_no_useless_work() -> None:
    """At the size that is measured, so that its bare work is what the sizes demand."""
    preset = Preset.model_validate(SIZES)
    with torch.inference_mode():
        assert sum(call.flops for call in record(dit_forward(preset))) == useful_flops(preset)

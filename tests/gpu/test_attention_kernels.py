"""Kernels against each other at the real head count and length, and what the approximate one really costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gamecraft_core.attention import flash, sage
from gamecraft_core.attention.kernel import KernelName, pick_kernel, sdpa
from tests.gpu.sizes import FIRST_TOKENS, TEXT_TOKENS

pytestmark = pytest.mark.gpu

HEADS, DIM = 24, 128
ROWS = FIRST_TOKENS + TEXT_TOKENS


def qkv(device: torch.device, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """As the blocks make them: normed queries and keys."""
    generator = torch.Generator(device).manual_seed(1)
    q, k, v = torch.randn(3, rows, HEADS, DIM, device=device, generator=generator)
    q, k = (x / x.square().mean(-1, keepdim=True).sqrt() for x in (q, k))
    return q.bfloat16(), k.bfloat16(), v.bfloat16()


def relative_rms(x: Tensor, exact: Tensor) -> float:
    return float((x.float() - exact.float()).square().mean().sqrt() / exact.float().square().mean().sqrt())


@torch.inference_mode()
def test_sdpa_at_full_length_is_exact_attention(cuda: torch.device) -> None:
    """Some rows of it, against float64 by hand."""
    q, k, v = qkv(cuda)
    rows = torch.arange(0, ROWS, ROWS // 16, device=cuda)
    scores = torch.einsum("nhd,mhd->hnm", q[rows].double(), k.double()) / DIM**0.5
    exact = torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v.double())
    assert relative_rms(sdpa(q, k, v)[rows], exact) < 0.01


@torch.inference_mode()
@pytest.mark.parametrize(("name", "limit"), [("flash", 0.01), ("sage", 0.06)])
def test_other_kernels_agree_with_sdpa(cuda: torch.device, name: KernelName, limit: float) -> None:
    if not {"flash": flash, "sage": sage}[name].available():
        pytest.skip(f"{name} attention's package is not installed")
    q, k, v = qkv(cuda)
    kernel = pick_kernel(name, cuda, torch.bfloat16)
    error = relative_rms(kernel(q, k, v), sdpa(q, k, v))
    print(f"{name}: relative rms error {error:.4f} on {torch.cuda.get_device_name(cuda)}")
    assert error < limit

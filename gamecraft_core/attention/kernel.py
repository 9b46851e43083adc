"""One interface over the attention kernels: full attention of ``q`` over ``k`` and ``v``, no mask.

Masks are never needed: text is trimmed to its real tokens and every sample is a pass of its own.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gamecraft_core.attention import flash
from gamecraft_core.base.errors import UsageError

KernelName = Literal["auto", "sdpa", "flash"]


class Kernel(Protocol):
    """Attention of q [n, heads, head_dim] over k, v [m, heads, head_dim], giving [n, heads, head_dim]."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's scaled dot-product attention, on any device and type."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)


def pick_kernel(name: KernelName, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel for a model of this device and type; ``auto`` takes flash_attn where it runs, else SDPA."""
    runs = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    if name == "sdpa" or (name == "auto" and not (runs and flash.available())):
        return sdpa
    if not flash.available():
        raise UsageError(
            "flash_attn is not installed",
            field="runtime.attention",
            remedy="install the 'gpu' extra, or choose auto or sdpa",
        )
    if not runs:
        raise UsageError(
            f"flash_attn does not run in {str(dtype).removeprefix('torch.')} on {device.type}",
            field="runtime.attention",
            remedy="choose auto or sdpa, or a CUDA device with runtime.dtype bfloat16 or float16",
        )
    return flash.flash_attention

"""One interface over the attention kernels: full attention of ``q`` over ``k`` and ``v``, no mask.

Masks are never needed: text is trimmed to its real tokens and every sample is a pass of its own.
"""

from __future__ import annotations

import logging
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gamecraft_core.attention import flash, sage
from gamecraft_core.base.errors import UsageError

log = logging.getLogger("framelane.attention")

KernelName = Literal["auto", "sdpa", "flash", "sage"]


class Kernel(Protocol):
    """Attention of q [n, heads, head_dim] over k, v [m, heads, head_dim], giving [n, heads, head_dim]."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's scaled dot-product attention, on any device and type."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)


def pick_kernel(name: KernelName, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel for a model of this device and type; ``auto`` takes flash_attn where it runs, else SDPA.

    ``sage`` is approximate: only who names it gets it.
    """
    runs = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    if name == "sdpa" or (name == "auto" and not (runs and flash.available())):
        return sdpa
    if name == "sage":
        _require("sageattention", sage.available(), runs, device, dtype)
        log.warning("runtime.attention sage is approximate: %s", sage.ERROR)
        return sage.sage_attention
    _require("flash_attn", flash.available(), runs, device, dtype)
    return flash.flash_attention


def _require(package: str, available: bool, runs: bool, device: torch.device, dtype: torch.dtype) -> None:
    if not runs:
        raise UsageError(
            f"{package} does not run in {str(dtype).removeprefix('torch.')} on {device.type}",
            field="runtime.attention",
            remedy="choose auto or sdpa, or a CUDA device with runtime.dtype bfloat16 or float16",
        )
    if not available:
        raise UsageError(
            f"{package} is not installed, or does not import",
            field="runtime.attention",
            remedy=f"install {package.replace('_', '-')} into the image, or choose auto or sdpa",
        )

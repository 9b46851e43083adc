"""FlashAttention through the flash_attn package: the only module that imports it."""

from __future__ import annotations

import importlib.util

from torch import Tensor


def available() -> bool:
    """Whether the flash_attn package is installed."""
    return importlib.util.find_spec("flash_attn") is not None


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over [rows, heads, head_dim] in float16 or bfloat16 on CUDA."""
    from flash_attn import flash_attn_func

    result: Tensor = flash_attn_func(q[None], k[None], v[None])
    return result[0]

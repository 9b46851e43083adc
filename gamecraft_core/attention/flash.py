"""FlashAttention through the flash_attn package: the only module that imports it."""

from __future__ import annotations

from torch import Tensor


def available() -> bool:
    """Whether the flash_attn package imports; one built for another torch is installed and does not."""
    try:
        import flash_attn
    except ImportError:
        return False
    return hasattr(flash_attn, "flash_attn_func")


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over [rows, heads, head_dim] in float16 or bfloat16 on CUDA."""
    from flash_attn import flash_attn_func

    result: Tensor = flash_attn_func(q[None], k[None], v[None])
    return result[0]

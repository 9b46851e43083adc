"""SageAttention through the sageattention package: the only module that imports it.

Approximate, and so never chosen by ``auto``: scores come from queries and keys rounded to int8. Its arithmetic,
simulated on normal draws of head size 128, moves an attention output by 1 to 2 % of its rms where values stay fp16
(A100), and by 4 % where they are fp8 (H100, RTX 40). The package itself was not measured by this project yet.
"""

from __future__ import annotations

from torch import Tensor

#: What the option costs, as it is told to whoever chooses it.
ERROR = "each attention output is off by about 1 to 2 % of its rms on A100, 4 % on H100 (simulated)"


def available() -> bool:
    """Whether the sageattention package imports."""
    try:
        import sageattention
    except ImportError:
        return False
    return hasattr(sageattention, "sageattn")


def sage_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over [rows, heads, head_dim] in float16 or bfloat16 on CUDA."""
    from sageattention import sageattn

    result: Tensor = sageattn(q[None], k[None], v[None], tensor_layout="NHD", is_causal=False)
    return result[0]

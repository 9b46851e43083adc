"""Joint attention by Ulysses times a ring, through xfuser: the only module that imports it, and only on CUDA.

A ring passes keys and values from rank to rank, so it goes beyond the head count, where Ulysses would pad heads.
Limits, each refused by name: heads must divide by the Ulysses degree, and the kernel is flash_attn's. xfuser's engine
would also take PyTorch's own kernels, but they hand the ring no log-sum-exp, or one rounded to 16 bits, and their
partial results are joined wrongly without an error; on a CPU nothing else is left, so there it is refused altogether.
A sequence whose rows do not divide among the ranks goes through own Ulysses. Written against xfuser 0.7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gamecraft_core.attention.flash import flash_attention
from gamecraft_core.attention.kernel import Kernel
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.errors import UsageError
from gamecraft_core.parallel.collective import Collective
from gamecraft_core.parallel.layout import Layout
from gamecraft_core.parallel.shard import Shard, pad_rows

#: xfuser's attention layer: video rows of this rank and text rows of all, each [1, rows, heads, head_dim].
LongContext = Callable[..., Tensor]

_FIELD = "ring_degree"


class HybridAttention(JointAttention):
    """As ``JointAttention``, with the exchange left to xfuser where rows divide evenly."""

    def __init__(self, kernel: Kernel, collective: Collective, long_context: LongContext) -> None:
        super().__init__(kernel, collective)
        self._long_context = long_context

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, shard: Shard, keep: int | None = None) -> Tensor:
        if shard.padded != shard.total:
            return super().__call__(q, k, v, shard, keep)
        if keep is not None:
            q = pad_rows(q, len(k), front=shard.local_index(keep))
        video = (x[None, : shard.local] for x in (q, k, v))
        text_q, text_k, text_v = (x[None, shard.local :] for x in (q, k, v))
        result = self._long_context(
            None,
            *video,
            joint_tensor_query=text_q,
            joint_tensor_key=text_k,
            joint_tensor_value=text_v,
            joint_strategy="rear",
        )
        rows = result[0].flatten(1)
        return rows if keep is None else rows[shard.local_index(keep) : shard.local]


def hybrid_attention(
    kernel: Kernel, collective: Collective, layout: Layout, heads: int, device: torch.device
) -> HybridAttention:
    """Attention over ``collective``, the ranks that share a sequence in ``layout``. Every rank of the group calls."""
    check_hybrid(kernel, layout, heads, device)
    return HybridAttention(kernel, collective, _long_context(layout, device))


def check_hybrid(kernel: Kernel, layout: Layout, heads: int, device: torch.device) -> None:
    """Refuse what the ring cannot do, or would do wrongly."""
    if device.type != "cuda":
        raise UsageError(
            f"a ring of {layout.ring_degree} needs CUDA: its ring on {device.type} is silently wrong",
            field=_FIELD,
            remedy="set ring_degree to 1: own Ulysses runs on any device, with any head count",
        )
    if heads % layout.ulysses_degree:
        raise UsageError(
            f"{heads} heads do not divide by the Ulysses degree {layout.ulysses_degree}",
            field=_FIELD,
            remedy="set ring_degree to 1, where heads are padded, or choose degrees that divide",
        )
    if kernel is not flash_attention:
        raise UsageError(
            "the ring joins partial results by flash_attn's log-sum-exp and runs with no other kernel",
            field=_FIELD,
            remedy="install flash-attn and set runtime.attention to auto or flash, or set ring_degree to 1",
        )


def _long_context(layout: Layout, device: torch.device) -> LongContext:
    """xfuser's layer over process groups of its own: contiguous ranks share a sequence, rings stride over them."""
    import torch.distributed as dist

    try:
        from xfuser.core.distributed import init_distributed_environment, initialize_model_parallel
        from xfuser.core.long_ctx_attention import AttnType, xFuserLongContextAttention
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"xfuser does not import: {error}", field=_FIELD, remedy="install xfuser 0.7, or set ring_degree to 1"
        ) from error
    init_distributed_environment(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        # A rank that sees one GPU drives device 0, whatever its number; left out, xfuser would take the number.
        local_rank=device.index if device.index is not None else torch.cuda.current_device(),
        backend=dist.get_backend(),
    )
    initialize_model_parallel(
        ulysses_degree=layout.ulysses_degree,
        ring_degree=layout.ring_degree,
        classifier_free_guidance_degree=2 if layout.split_guidance else 1,
        backend=dist.get_backend(),
    )
    layer: Any = xFuserLongContextAttention(attn_type=AttnType.FA)
    return lambda *arguments, **options: layer(*arguments, **options)

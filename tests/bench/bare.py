"""The bare work of a model: its own matmuls, convolutions and attention calls, replayed without anything between them.

``record`` watches one call and notes operator, shapes and types; ``replay`` makes the same calls on tensors that exist
beforehand and lie in the layout that suits the operator best. What a model spends beyond its replay is its overhead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_CHANNELS_LAST = torch.channels_last_3d

#: Operators that count, in the forms in which eager inference reaches them.
_COUNTED = {
    "linear",
    "addmm",
    "addmm_",
    "mm",
    "bmm",
    "baddbmm",
    "matmul",
    "convolution",
    "conv3d",
    "conv2d",
    "mkldnn_convolution",
    "scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
}


@dataclass(frozen=True)
class Call:
    """One counted call; tensors among the arguments are replaced by their descriptions."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.op.overloadpacket).removeprefix("aten.")


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func.overloadpacket).removeprefix("aten.")
        if name in _COUNTED:
            describe = lambda x: tuple(x.shape) + tuple(x.stride()) if isinstance(x, Tensor) else x
            self.calls.append(Call(func, tuple(map(describe, args)), {k: describe(v) for k, v in kwargs.items()}))
        return func(*args, **kwargs)

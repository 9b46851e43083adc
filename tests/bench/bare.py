"""The bare work of a model: its own matmuls, convolutions and attention calls, replayed with nothing between them.

``record`` watches one call and notes what was asked of these operators; ``Replay`` asks the same again of tensors that
exist beforehand, each operator in whichever memory layout it is faster in. What a model takes beyond its replay is
its overhead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

Shape = tuple[int, ...]
Kind = Literal["matmul", "convolution", "attention"]

_TRIALS = 3
_MATMULS = ("linear", "_linear_pointwise")
_CONVOLUTIONS = ("convolution", "conv3d", "conv2d", "mkldnn_convolution")
_ATTENTION = "scaled_dot_product_attention"
#: What must not pass unseen: an operator that does such work under a name that is not counted.
_UNEXPECTED = ("mm", "addmm", "bmm", "baddbmm", "matmul", "einsum")


@dataclass(frozen=True)
class Call:
    """One call: shapes of its tensors (a bias counts), and a convolution's stride."""

    kind: Kind
    shapes: tuple[Shape, ...]
    stride: Shape = ()

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        first, second = self.shapes[:2]
        if self.kind == "attention":
            return 4 * math.prod(first) * second[-2]
        if self.kind == "matmul":
            return 2 * math.prod(first) * second[0]
        sides = zip(first[2:], second[2:], self.stride, strict=True)
        return 2 * first[0] * math.prod(second) * math.prod((side - kernel) // step + 1 for side, kernel, step in sides)


def record(run: Callable[[], Any]) -> list[Call]:
    """The counted calls of one ``run``."""
    recorder = _Recorder()
    with recorder:
        run()
    return recorder.calls


class Replay:
    """The same calls bare; ``layouts`` says how many were faster in which layout."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.layouts: dict[str, int] = {}
        chosen: dict[Call, tuple[str, Callable[[], Any]]] = {}
        self._runs = []
        for call in calls:
            if call not in chosen:
                chosen[call] = min(_candidates(call).items(), key=lambda candidate: _fastest(candidate[1]))
            layout, run = chosen[call]
            self.layouts[layout] = self.layouts.get(layout, 0) + 1
            self._runs.append(run)

    def __call__(self) -> None:
        for run in self._runs:
            run()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _UNEXPECTED:
            raise NotImplementedError(f"{func} does work that is not counted")
        shapes = tuple(tuple(value.shape) for value in args if isinstance(value, Tensor))
        if name in _MATMULS:
            self.calls.append(Call("matmul", shapes))
        elif name == _ATTENTION:
            self.calls.append(Call("attention", shapes))
        elif name in _CONVOLUTIONS:
            stride = args[4 if name == "mkldnn_convolution" else 3]
            self.calls.append(Call("convolution", shapes, tuple(stride)))
        return func(*args, **(kwargs or {}))


def _candidates(call: Call) -> dict[str, Callable[[], Any]]:
    """The call in every layout that comes into question."""
    tensors = [torch.randn(shape) for shape in call.shapes]
    if call.kind == "matmul":
        return {"rows": lambda: F.linear(*tensors)}
    if call.kind == "attention":
        q, k, v = tensors
        rows_q, rows_k, rows_v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors)
        return {
            "heads outside": lambda: F.scaled_dot_product_attention(q, k, v),
            "heads inside": lambda: F.scaled_dot_product_attention(rows_q, rows_k, rows_v),
        }
    last = [x.contiguous(memory_format=torch.channels_last_3d) if x.dim() == 5 else x for x in tensors]
    return {"channels last": lambda: _convolve(last, call), "channels first": lambda: _convolve(tensors, call)}


def _convolve(tensors: Sequence[Tensor], call: Call) -> Tensor:
    """By oneDNN, which PyTorch itself would not use for small inputs (10 x slower)."""
    x, weight, *bias = tensors
    ones = (1,) * len(call.stride)
    nothing = (0,) * len(call.stride)
    return torch.mkldnn_convolution(x, weight, bias[0] if bias else None, nothing, call.stride, ones, 1)


def _fastest(run: Callable[[], Any]) -> float:
    run()
    times = []
    for _ in range(_TRIALS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)

"""How many bytes of tensors are alive at once while some code runs, on any device, ``meta`` included.

On ``meta`` nothing is allocated or computed, so a model of any size can be measured in milliseconds by running the
very code that a GPU runs. Counted is what tensors ask for: not a kernel's private workspace, nor what an allocator
loses to rounding and fragmentation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active: ``live`` bytes of the tensors made so far and not yet gone, and the ``peak`` of it.

    Only storages on ``device`` count. What existed before is not counted, nor are views of it.
    """

    def __init__(self, device: torch.device | str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._device = torch.device(device).type
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        for tensor in _tensors((args, list((kwargs or {}).values()))):
            self._note(tensor, size=0)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._note(tensor, size=tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _note(self, tensor: Tensor, size: int) -> None:
        if tensor.device.type != self._device:
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known and self._known[key]() is storage:
            return

        def gone(_: object) -> None:
            self.live -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.live += size


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, lists of them included."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)

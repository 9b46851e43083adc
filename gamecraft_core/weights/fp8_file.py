"""The published fp8 file: e4m3 weights of the blocks' linears, and their scales in a map file beside it.

A weight is expanded to bfloat16 before an ordinary matmul, as the published code does; here that happens once, when it
is read. So results are that code's, and memory is that of bfloat16 (``runtime.fp8`` is what computes in fp8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.weights.files import open_pickle
from gamecraft_core.weights.quantise import FP8
from gamecraft_core.weights.source import Source


def scales_beside(file: Path) -> Path:
    """Where the map file of ``file`` would be."""
    return file.with_name(f"{file.stem}_map{file.suffix}")


def read_scales(place: Path) -> dict[str, Tensor]:
    """The scale of each linear layer, by its module's path."""
    found = open_pickle(place, "weights.dit")
    wrong = [key for key, value in found.items() if not isinstance(value, Tensor) or value.numel() != 1]
    if wrong:
        raise WeightsError(f"{place}: {wrong[0]!r} is no scale", field="weights.dit", remedy="fetch the map file again")
    return {key.removesuffix(".weight"): value for key, value in found.items()}


def is_stored_bare(source: Source) -> bool:
    """Whether e4m3 weights are there without scales of their own."""
    return any(
        entry.dtype == FP8 and f"{key.removesuffix('.weight')}.weight_scale" not in source.entries
        for key, entry in source.entries.items()
    )


def expanded(source: Source, scales: Mapping[str, Tensor]) -> Source:
    """``source`` with its e4m3 weights in bfloat16, each times its scale."""
    modules = {key: key.removesuffix(".weight") for key, entry in source.entries.items() if entry.dtype == FP8}
    without = [key for key, module in modules.items() if module not in scales]
    if without:
        raise WeightsError(
            f"the map file has no scale for {without[0]} of {source.name}",
            field="weights.dit",
            remedy="fetch the two files of one release",
        )
    entries = {
        key: replace(entry, dtype=torch.bfloat16) if key in modules else entry for key, entry in source.entries.items()
    }

    def read(key: str) -> Tensor:
        value = source.read(key)
        return value.to(torch.bfloat16) * scales[modules[key]].to(torch.bfloat16) if key in modules else value

    return Source(source.name, entries, read)

"""Filling a module built on the meta device, tensor by tensor.

Invariant: the report on keys, shapes and types comes before the first copy, so nothing half-loaded ever runs; and a
filled module owns its memory (no tensor stays a view of a mapped file).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.weights.quantise import is_fp8, require_fp8
from gamecraft_core.weights.source import Source

Device = torch.device | str | None

_SHOWN = 5


def fill(module: nn.Module, source: Source, field: str, device: Device = None) -> None:
    """Copy ``source`` into ``module``, cast to its own dtypes; a misfit is a WeightsError that names ``field``."""
    wanted = module.state_dict()
    refuse_fp8(source, wanted, field, torch.device(device or "cpu"))
    require_match(source, wanted, field)
    for name, target in allocate(module, device).items():
        target.copy_(source.read(name))


def allocate(module: nn.Module, device: Device = None) -> dict[str, Tensor]:
    """Real memory for all of ``module``; returns its tensors by key, detached and ready to be written.

    Without a ``device`` a module stays where it is, or comes to the CPU from the meta device.
    """
    states = module.state_dict()
    derived = [name for name, buffer in module.named_buffers() if buffer.is_meta and name not in states]
    if derived:
        raise ValueError(f"buffers {derived} are in no checkpoint: build them outside the meta device")
    if any(tensor.is_meta for tensor in states.values()):
        room = {name: torch.empty_like(tensor, device=device or "cpu") for name, tensor in states.items()}
        module.load_state_dict(room, assign=True)
    if device is not None:
        module.to(device)
    module.requires_grad_(False).eval()
    return module.state_dict()


def refuse_fp8(source: Source, wanted: dict[str, Tensor], field: str, device: torch.device) -> None:
    """Refuse fp8 values for tensors that are not: their scale would be lost."""
    for name, entry in source.entries.items():
        if is_fp8(entry) and name in wanted and wanted[name].dtype != entry.dtype:
            what = f"{entry.file}: {name} is stored in fp8"
            require_fp8(device, what, field)
            raise WeightsError(what, field=field, remedy="set runtime.fp8=true, or name a bfloat16 checkpoint")


def require_match(source: Source, wanted: dict[str, Tensor], field: str) -> None:
    """One report of every missing, unexpected and misshapen key."""
    found = source.entries
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    misshapen = [
        f"{name} (file {list(found[name].shape)}, model {list(tensor.shape)})"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tuple(tensor.shape)
    ]
    groups = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    report = [f"{len(names)} {what}: {_some(names)}" for what, names in groups if names]
    if report:
        raise WeightsError(
            f"{source.name} does not fit the preset: {'; '.join(report)}",
            field=field,
            remedy="name the checkpoint that belongs to this preset, or correct the preset's sizes",
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

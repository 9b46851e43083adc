"""Checks of a node's GPUs, from what ``nvidia-smi`` says: that they are there, large enough, linked, and driven."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gamecraft_core.base.preset import Preset
from jobs.checkup.finding import Asked, Finding

_TIMEOUT_S = 20.0
_FIELDS = "name,memory.total,driver_version,compute_cap"
_NONE = Finding("", "skipped", "no GPU is asked for here, or none is there")
#: A GPU shows a little less memory than its name says, and CUDA itself takes some.
_OVERHEAD = 1 << 30


@dataclass(frozen=True, slots=True)
class Gpu:
    """``memory`` in bytes; ``capability`` as in (9, 0)."""

    name: str
    memory: int
    driver: str
    capability: tuple[int, int]


def gpus(asked: Asked) -> Finding:
    found = _found()
    if not (asked.gpus or found):
        return _NONE
    models = {gpu.name for gpu in found}
    seen = f"{len(found)} of {asked.gpus} GPUs: {', '.join(sorted(models)) or 'none'}"
    if len(found) < asked.gpus:
        return Finding("", "fail", seen, "choose a smaller fleet, or see that nvidia-smi lists them in the container")
    mixed = "groups of unequal GPUs go at the slowest one's speed: name one with fleet accelerator"
    return Finding("", "warn" if len(models) > 1 else "ok", seen, mixed if len(models) > 1 else "")


def gpu_memory(asked: Asked) -> Finding:
    """The smallest GPU against what ``jobs.memory`` predicts of the largest rank, and of what lies beside it."""
    found = _found()
    if not (asked.gpus and found):
        return _NONE
    room = min(gpu.memory for gpu in found) - _OVERHEAD
    for preset in asked.presets:
        rank, beside = _predicted(preset, asked)
        seen = f"{preset.name}: a rank takes {_gib(rank)}, what may lie beside it {_gib(beside)}, of {_gib(room)}"
        if rank > room:
            return Finding("", "fail", seen, "more ranks a group (sp_degree), runtime.fp8 or runtime.offload")
        if rank + beside > room:
            return Finding("", "warn", seen, "reserve a whole GPU for each rank, or for what lies beside it")
    return Finding("", "ok", seen)


def _predicted(preset: Preset, asked: Asked) -> tuple[int, int]:
    """Bytes of the largest rank, and of the largest other role that fits beside one by its share of the GPU."""
    from gamecraft_core.footprint import predict
    from gamecraft_core.footprint.text import text_role

    runtime, fleet = preset.runtime, asked.fleet
    keeping: predict.Keeping = runtime.offload if runtime.offload != "none" else "fp8" if runtime.fp8 else "resident"
    weights = predict.rank_weights(preset, keeping)
    degrees = {group.sp_degree for group in fleet.denoise if group.num_gpus}
    ranks = [weights + predict.denoise_activations(preset, continuing=True, world=degree) for degree in degrees]
    left = 1 - min((group.num_gpus for group in fleet.denoise if group.num_gpus), default=1)
    others = {"decode": predict.decode_role, "encode": predict.encode_role, "text": text_role}
    shares = {"decode": fleet.decode.num_gpus, "encode": fleet.encode.num_gpus, "text": fleet.text.num_gpus}
    beside = [others[role](preset).total for role, share in shares.items() if 0 < share <= left]
    return max(ranks, default=0), max(beside, default=0)


def gpu_links(asked: Asked) -> Finding:
    if asked.gpus < 2 or asked.most_ranks < 2 or not _found():
        return Finding("", "skipped", "no group of several GPUs is asked for here, or they are not there")
    kinds = links(_said("topo", "-m"))
    shown = ", ".join(f"{len(pairs)} pairs by {kind}" for kind, pairs in sorted(kinds.items())) or "no pairs"
    if kinds and all(kind.startswith("NV") for kind in kinds):
        return Finding("", "ok", shown)
    remedy = "ranks exchange their sequence four times a block: on PCIe prefer small sp_degrees (see jobs.plan)"
    return Finding("", "warn", shown, remedy)


def links(topology: str) -> dict[str, list[tuple[int, int]]]:
    """Pairs of GPUs by the kind of their link, as ``nvidia-smi topo -m`` names it (NV12, PIX, PXB, PHB, NODE, SYS)."""
    kinds: dict[str, list[tuple[int, int]]] = {}
    for line in re.sub(r"\x1b\[[0-9;]*m", "", topology).splitlines():
        name, *cells = line.split() or [""]
        row = re.fullmatch(r"GPU(\d+)", name)
        if row is None or not cells or "X" not in cells:
            continue
        for column, kind in enumerate(cells[: int(row[1])]):
            kinds.setdefault(kind, []).append((column, int(row[1])))
    return kinds


def gpu_driver(asked: Asked, torch_cuda: str | None = None) -> Finding:
    """The newest CUDA that the driver knows against the one that torch's wheel was built for."""
    if not _found():
        return _NONE
    built = torch_cuda if torch_cuda is not None else _torch_cuda()
    if not built:
        return Finding("", "fail", "torch is built for CPUs only", "install torch from PyTorch's CUDA index")
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", _said())
    if found is None:
        return Finding("", "fail", "nvidia-smi names no CUDA version", "mend the driver: nvidia-smi must work here")
    knows = (int(found[1]), int(found[2]))
    seen = f"the driver knows CUDA {knows[0]}.{knows[1]}, torch is built for {built}"
    if knows[0] < int(built.partition(".")[0]):
        return Finding("", "fail", seen, "update the driver, or install a torch wheel of an older CUDA")
    return Finding("", "ok", seen)


def fp8(asked: Asked) -> Finding:
    wanting = [preset.name for preset in asked.presets if preset.runtime.fp8]
    if not wanting:
        return Finding("", "skipped", "no preset asks for runtime.fp8")
    from gamecraft_core.weights.quantise import FIRST_CAPABILITY

    found = _found()
    least = min((gpu.capability for gpu in found), default=(0, 0))
    seen = f"{', '.join(wanting)} on compute capability {least[0]}.{least[1]}" if found else "there is no GPU"
    if least < FIRST_CAPABILITY:
        return Finding("", "fail", seen, "set runtime.fp8=false: these GPUs have no fp8 units (8.9 and later do)")
    return Finding("", "ok", seen)


def _found() -> list[Gpu]:
    """The GPUs of this node; none where ``nvidia-smi`` is not there or finds no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    found = []
    for line in _said(f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits").splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and cells[1].isdigit():
            major, _, minor = cells[3].partition(".")
            found.append(Gpu(cells[0], int(cells[1]) << 20, cells[2], (int(major), int(minor or 0))))
    return found


def _said(*arguments: str) -> str:
    done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    return done.stdout


def _torch_cuda() -> str | None:
    """Read from the wheel, which takes no import of it."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    told = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda\b[^=]*= *['\"]([\d.]+)", told, re.MULTILINE)
    return found[1] if found else None


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


CHECKS = (gpus, gpu_memory, gpu_links, gpu_driver, fp8)

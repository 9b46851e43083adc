"""How much memory this process holds, and how much it could have: of its GPU where it uses one, else of its host."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
#: Of a container, in both versions of control groups: limit, use, and what of the use is cache that can go.
_CONTAINERS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def memory() -> dict[str, int]:
    """``memory_bytes``: what its GPU's allocator reserved, else resident; ``memory_limit_bytes``: with what is free."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        held = int(torch.cuda.memory_reserved())
        return {"memory_bytes": held, "memory_limit_bytes": held + int(torch.cuda.mem_get_info()[0])}
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"memory_bytes": held, "memory_limit_bytes": held + free_bytes()}


def free_bytes(meminfo: Path = _MEMINFO, cgroups: Path = _CGROUPS) -> int:
    """What this machine, or the container that this process is in, has left for it."""
    free = _fields(meminfo)["MemAvailable:"] << 10
    for limit, usage, stat, cache in _CONTAINERS:
        try:
            most = (cgroups / limit).read_text().strip()
            used = int((cgroups / usage).read_text()) - _fields(cgroups / stat).get(cache, 0)
        except FileNotFoundError:
            continue
        if most.isdigit():  # or it says "max"
            free = min(free, max(0, int(most) - used))
    return free


def _fields(path: Path) -> dict[str, int]:
    """The numbers in lines of NAME NUMBER."""
    return {words[0]: int(words[1]) for line in path.read_text().splitlines() if len(words := line.split()) > 1}

"""How much memory a lane could have, in and out of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.memory import free_bytes, memory

GIB = 1 << 30

FILES = {
    "v2": ("memory.max", "memory.current", "memory.stat", "anon 5\ninactive_file {cache}\n"),
    "v1": (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file {cache}\n",
    ),
}


def machine(folder: Path, free: int) -> Path:
    path = folder / "meminfo"
    path.write_text(f"MemTotal: 99999999 kB\nMemAvailable: {free >> 10} kB\nHugePages_Total: 0\n")
    return path


@pytest.mark.parametrize("version", FILES)
@pytest.mark.parametrize(("limit", "left"), [("4294967296", 4 * GIB - (3 * GIB - GIB)), ("max", 9 * GIB)])
def test_a_container_has_what_its_limit_leaves(tmp_path: Path, version: str, limit: str, left: int) -> None:
    most, used, stat, said = FILES[version]
    (tmp_path / most).parent.mkdir(exist_ok=True)
    (tmp_path / most).write_text(f"{limit}\n")
    (tmp_path / used).write_text(f"{3 * GIB}\n")
    (tmp_path / stat).write_text(said.format(cache=GIB))
    assert free_bytes(machine(tmp_path, 9 * GIB), tmp_path) == left


def test_a_limit_beyond_the_machine_is_none(tmp_path: Path) -> None:
    assert free_bytes(machine(tmp_path, 2 * GIB), tmp_path) == 2 * GIB


def test_this_process_holds_some_and_could_have_more() -> None:
    facts = memory()
    assert 10 << 20 < facts["memory_bytes"] < facts["memory_limit_bytes"]

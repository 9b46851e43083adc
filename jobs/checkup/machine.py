"""Checks of the machine itself: interpreter, packages, limits, shared memory, disks."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from gamecraft_core.base.input_cache import default_folder
from gamecraft_core.base.version import VERSION
from jobs.checkup.finding import Asked, Finding

_PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_OLDEST = (3, 11)

#: Files and sockets: what Ray itself asks for, and what a driver or service can live with.
_MANY_FILES, _FEW_FILES = 65536, 4096
#: Above this share of a disk Ray writes nothing to it any more, spilled objects included.
_FULL = 0.95
_ROOM_BYTES = 10 << 30
#: NCCL keeps its buffers between ranks of one node in shared memory.
_NCCL_BYTES = 1 << 30


def python(asked: Asked, version: tuple[int, ...] | None = None) -> Finding:
    there = version or tuple(map(int, platform.python_version_tuple()[:2]))
    shown = ".".join(map(str, there))
    same = {"Python": platform.python_version(), "Framelane": VERSION}
    if there < _OLDEST:
        return Finding("", "fail", f"Python {shown}", f"install Python {'.'.join(map(str, _OLDEST))} or later")
    return Finding("", "ok", f"Python {platform.python_version()} on {platform.machine()}", same=same)


def packages(asked: Asked, declared: Sequence[str] | None = None) -> Finding:
    """What is installed against what the project asks for (``declared``; by default as its metadata say)."""
    from packaging.requirements import Requirement

    wrong, right = [], 0
    for text in declared if declared is not None else _declared(asked):
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": "traces" if asked.traces else ""}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if wanted.specifier.contains(version, prereleases=True):
            right += 1
        else:
            wrong.append(f"{wanted.name} {version} is not {wanted.specifier}")
    if wrong:
        return Finding("", "fail", "; ".join(wrong), "install the project with its constraints: make setup")
    # A head's torch may be a CPU build.
    same = {name: metadata.version(name).partition("+")[0] for name in ("ray", "torch", "numpy")}
    return Finding("", "ok", f"{right} packages, ray {same['ray']}, torch {same['torch']}", same=same)


def _declared(asked: Asked) -> Sequence[str]:
    if _PROJECT.is_file():
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *(project["optional-dependencies"]["traces"] if asked.traces else ())]
    return metadata.requires("framelane") or ()


def open_files(asked: Asked, limits: tuple[int, int] | None = None) -> Finding:
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    most = _MANY_FILES if hard == endless else hard
    seen = f"{'unlimited' if soft == endless else soft} open files, {'unlimited' if hard == endless else hard} at most"
    if most < _FEW_FILES:
        return Finding("", "fail", seen, f"let processes open {_MANY_FILES} files: ulimit -n, LimitNOFILE, --ulimit")
    if soft != endless and soft < _FEW_FILES:
        return Finding("", "warn", seen, f"ulimit -n {min(most, _MANY_FILES)} before starting; streams are sockets")
    return Finding("", "ok", seen)


def shared_memory(asked: Asked, path: str = "/dev/shm") -> Finding:
    """Ray's object store lives there as far as it fits; ranks of one node exchange through it, too."""
    usage = shutil.disk_usage(path)
    seen = f"{path} has {_size(usage.total)}, {_size(usage.free)} free; Ray's objects want {_size(asked.object_store)}"
    remedy = f"give the container {_size(max(asked.object_store, _NCCL_BYTES))} of it: --shm-size, or an emptyDir"
    if asked.gpus and asked.most_ranks > 1 and usage.total < _NCCL_BYTES:
        return Finding("", "fail", seen, f"{remedy}; NCCL needs it between the ranks of a node")
    if usage.total < asked.object_store:
        return Finding("", "warn", seen, f"{remedy}; what does not fit goes to disk, which is slow")
    return Finding("", "ok", seen)


def disk_space(asked: Asked, folders: Sequence[str] | None = None) -> Finding:
    """Where Ray spills and logs, and where checkpoints from S3 are kept."""
    places = folders or (os.environ.get("RAY_TMPDIR", "/tmp"), str(default_folder()))
    seen, remedy, full, little = [], "", False, False
    for place in map(_existing, places):
        usage = shutil.disk_usage(place)
        used = 1 - usage.free / usage.total
        seen.append(f"{place}: {_size(usage.free)} free, {used:.0%} used")
        full, little = full or used >= _FULL, little or usage.free < _ROOM_BYTES
    if full:
        remedy = f"free some space: Ray keeps nothing on a disk that is {_FULL:.0%} full"
    elif little:
        remedy = f"{_size(_ROOM_BYTES)} are soon used up by spilled objects and logs"
    return Finding("", "fail" if full else "warn" if little else "ok", "; ".join(dict.fromkeys(seen)), remedy)


def _existing(place: str) -> str:
    """The nearest folder that is there already."""
    path = Path(place).absolute()
    return str(next(each for each in (path, *path.parents) if each.exists()))


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


CHECKS = (python, packages, open_files, shared_memory, disk_space)

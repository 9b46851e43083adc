"""What a check of the environment is asked and what it answers: plain values that travel to every node and back.

Invariant: a check ends in a finding. What it did not expect is one, too (``carried_out``), and so is its silence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from actors.fleet_spec import FleetSpec
from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.preset import Preset

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What check ``name`` saw on ``node``, and what to do about it. ``same``: facts that every node must share."""

    name: str
    status: Status
    seen: str
    remedy: str = ""
    node: str = "here"
    same: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the environment is to carry. ``gpus`` and ``object_store`` (bytes) are what Ray counts on on this node."""

    presets: tuple[Preset, ...]
    fleet: FleetSpec
    options: dict[str, Any] = field(default_factory=dict)
    out: str | None = None
    gpus: int = 0
    object_store: int = 512 << 20
    traces: bool = False
    #: Not so on a node without a GPU, where others have some.
    has_lanes: bool = True

    @property
    def most_ranks(self) -> int:
        """Of a group."""
        return max(group.sp_degree for group in self.fleet.denoise)


Check = Callable[[Asked], Finding]


def carried_out(checks: Sequence[Check], asked: Asked, timeout_s: float = 60.0) -> list[Finding]:
    """Every check's finding, in order. They run beside each other, on threads that hold up nobody's end."""
    found: dict[str, Finding] = {}
    running = []
    for check in checks:
        thread = threading.Thread(target=lambda each=check: found.__setitem__(_name(each), _carried_out(each, asked)))
        thread.daemon = True
        thread.start()
        running.append(thread)
    for thread in running:
        thread.join(timeout_s)
    silent = f"it has not ended in {timeout_s:g} s"
    return [found.get(_name(each)) or Finding(_name(each), "fail", silent, "see what it waits for") for each in checks]


def _carried_out(check: Check, asked: Asked) -> Finding:
    try:
        return replace(check(asked), name=_name(check))
    except FramelaneError as error:
        return Finding(_name(check), "fail", _place(error) + error.message, error.remedy or "put it right")
    except Exception as error:
        said = f"the check itself failed: {type(error).__name__}: {error}"
        return Finding(_name(check), "fail", said, "report this; the check's subject was not examined")


def _place(error: FramelaneError) -> str:
    return f"{error.field}: " if error.field else ""


def _name(check: Check) -> str:
    return str(getattr(check, "__name__", check)).replace("_", " ")

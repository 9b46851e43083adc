"""What the processes of a run tell about it, and in which form: plain data that travels to actors."""

from __future__ import annotations

from dataclasses import dataclass

from gamecraft_core.base.logs import Form


@dataclass(frozen=True, slots=True)
class Telemetry:
    """``run`` is the run's id, ``logs`` the form of log lines, ``traces`` where spans go: None sends none."""

    run: str = ""
    logs: Form = "text"
    traces: str | None = None

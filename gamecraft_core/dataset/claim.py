"""An output belongs to one run: ``run.json`` is its claim, put conditionally before any work.

Invariant: a run continues an output only when everything that shapes its content is equal; otherwise it is refused
with the differences named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gamecraft_core.base.errors import OutputTaken
from gamecraft_core.base.points import reached
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout

RUN_VERSION = 1
_NAMED = 8


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """``resumed``: the output already belonged to this run, as ``run_id`` and in this ``status``.

    ``survey`` is what the run noted about its manifest, if it did.
    """

    resumed: bool
    run_id: str
    status: str = "running"
    survey: dict[str, Any] | None = None


def claim(store: Store, run: Mapping[str, Any]) -> ClaimResult:
    """Claim the output for ``run`` (``run_id``, ``identity``, and whatever else run.json should say).

    ``identity`` is everything that decides what comes out: the manifest's digest and the resolved settings.
    """
    found = look(store, run["identity"])
    if found is None and store.put_if_absent(layout.RUN, _encode(run)):
        reached("claim.made")
        return ClaimResult(False, run["run_id"])
    return found or _compare(store, run["identity"])


def look(store: Store, identity: Mapping[str, Any]) -> ClaimResult | None:
    """The run with ``identity`` that has the output; None where nobody has it. Raises OutputTaken."""
    if store.exists(layout.RUN):
        return _compare(store, identity)
    for folder in (layout.COMMITS, layout.DATA):
        if next(iter(store.list(folder)), None) is not None:
            raise _taken(f"{store.root} holds a dataset but no {layout.RUN}")
    return None


def finish(store: Store, run: Mapping[str, Any]) -> None:
    """Replace run.json by its final form: the claim's fields, and the counts."""
    store.put(layout.RUN, _encode(run))


def _compare(store: Store, identity: Mapping[str, Any]) -> ClaimResult:
    there = _read(store)
    differences = list(_differences(there["identity"], json.loads(json.dumps(identity))))
    if differences:
        rest = len(differences) - _NAMED
        listed = "; ".join(differences[:_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
        raise _taken(f"{store.root} belongs to run {there['run_id']}, which differs: {listed}")
    return ClaimResult(True, there["run_id"], there["status"], there["survey"])


def _encode(run: Mapping[str, Any]) -> bytes:
    return json.dumps({"version": RUN_VERSION, **run}, indent=2, allow_nan=False, ensure_ascii=False).encode()


def _read(store: Store) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads(store.get(layout.RUN))
        if (version := run["version"]) != RUN_VERSION:
            raise OutputTaken(
                f"{store.uri(layout.RUN)} has version {version!r}, and this program reads {RUN_VERSION}",
                field="out",
                remedy="continue it with the release that began it, or choose another output",
            )
        named = {"run_id": run["run_id"], "identity": run["identity"]}
        return {**named, "status": run.get("status", "running"), "survey": run.get("survey")}
    except (ValueError, KeyError, TypeError) as error:
        raise _taken(f"{store.uri(layout.RUN)} is not a run's record") from error


def _differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            inner = f"{path}.{name}" if path else name
            yield from _differences(there.get(name, _ABSENT), here.get(name, _ABSENT), inner)
    elif there != here:
        yield f"{path}: {_show(there)} there, {_show(here)} here"


class _Absent:
    """A field that only one side has."""


_ABSENT = _Absent()


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _taken(message: str) -> OutputTaken:
    return OutputTaken(message, field="out", remedy="choose another output, or repeat the settings it was begun with")

"""Sessions for tests: small, complete, nothing on disk."""

from __future__ import annotations

from typing import Any

from gamecraft_core.base.messages import Provenance
from gamecraft_core.base.spec import ActionControl, SessionSpec, Start


def session(name: str = "s", chunks: int = 3, **changes: Any) -> SessionSpec:
    fields: dict[str, Any] = {
        "session_id": name,
        "preset": "tiny",
        "start": Start("image", "file:///nowhere.png"),
        "controls": tuple(ActionControl("w", 0.2) for _ in range(chunks)),
        "prompt": "a quiet harbour",
        "negative_prompt": "",
        "seed": 1,
        "steps": 2,
        "guidance": 1.0,
        "shift": 5.0,
        "height": 32,
        "width": 48,
        "row": 1,
    }
    return SessionSpec(**(fields | changes))


def provenance(spec: SessionSpec, sp_degree: int) -> Provenance:
    return Provenance(
        preset=spec.preset,
        weights_fingerprint="f" * 16,
        code_version="0",
        steps=spec.steps,
        guidance=spec.guidance,
        shift=spec.shift,
        sp_degree=sp_degree,
        hardware="fake",
    )

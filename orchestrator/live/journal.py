"""What callers were promised, in the store before they are told: requests, controls, the wish to finish or to stop.

Invariants: every object is put conditionally, so of two services on one output only one can accept a session's next
control; nothing is changed afterwards, so what is there says all there is to know of a session that is not settled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.spec import ActionControl, Control, MotionControl, NoControl, PoseControl, SessionSpec, Start
from gamecraft_core.base.store import Store
from gamecraft_core.dataset import layout
from orchestrator.live.port import Conflict, Upload

VERSION = 1


@dataclass(slots=True)
class Promise:
    """One session as its objects tell it: ``spec`` holds every accepted control."""

    spec: SessionSpec
    created: float
    finish: bool = False
    cancelled: bool = False
    key: str = ""


@dataclass(slots=True)
class Noted:
    """The names of one session's promises: ``controls`` are the chunks that they begin with."""

    tenant: str
    session_id: str
    controls: list[int] = field(default_factory=list)
    whats: set[str] = field(default_factory=set)


class Journal:
    """The promises in ``store``. Its calls wait for the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, spec: SessionSpec, created: float, key: str = "") -> None:
        fields = asdict(replace(spec, controls=()))
        request = {"created": created, "spec": fields, "controls": [describe(control) for control in spec.controls]}
        request |= {"key": key} if key else {}
        self._put(spec, "request", request)

    def extend(self, spec: SessionSpec, first: int, controls: Sequence[Control]) -> None:
        """``controls`` are for chunk ``first`` and those after it. Conflict where somebody else accepted others."""
        self._put(spec, layout.controls_from(first), {"controls": [describe(control) for control in controls]})

    def finish(self, spec: SessionSpec, chunks: int) -> None:
        self._put(spec, "finish", {"chunks": chunks})

    def cancel(self, spec: SessionSpec) -> None:
        self._put(spec, "cancel", {})

    def forget(self, tenant: str, session_id: str) -> None:
        """The request goes last: what has one is a session still."""
        folder = layout.promises_folder(tenant, session_id)
        for key in sorted(self._store.list(folder), key=lambda key: key.endswith("/request.json")):
            self._store.delete(key)

    def names(self, tenant: str = "") -> Iterator[Noted]:
        """Sessions in the order of their ids, tenant by tenant."""
        folder = layout.promises_folder(tenant) if tenant else layout.SESSIONS
        keys = (named for key in self._store.list(folder) if (named := layout.parse_promise_key(key)) is not None)
        for (owner, session_id), group in groupby(keys, key=lambda named: (named.tenant, named.session_id)):
            noted = Noted(owner, session_id)
            for named in group:
                if named.what.startswith("controls-"):
                    noted.controls.append(named.first)
                noted.whats.add(named.what)
            yield noted

    def read(self, tenant: str, session_id: str) -> Promise:
        """Raises FileNotFoundError where there is no such session."""
        request = self._get(layout.promise_key(tenant, session_id, "request"))
        noted = Noted(tenant, session_id)
        for key in self._store.list(layout.promises_folder(tenant, session_id)):
            named = layout.parse_promise_key(key)
            if named is not None and named.what.startswith("controls-"):
                noted.controls.append(named.first)
            elif named is not None:
                noted.whats.add(named.what)
        controls = [read_control(each) for each in request["controls"]]
        for first in sorted(noted.controls):
            if first != len(controls):
                break  # accepted by a service that had lost the session; its caller was told of a conflict
            more = self._get(layout.promise_key(tenant, session_id, layout.controls_from(first)))
            controls += [read_control(each) for each in more["controls"]]
        fields = {**request["spec"], "start": Start(**request["spec"]["start"]), "controls": tuple(controls)}
        ends = ("finish" in noted.whats, "cancel" in noted.whats)
        return Promise(SessionSpec(**fields), request["created"], *ends, request.get("key", ""))

    def _put(self, spec: SessionSpec, what: str, content: Mapping[str, Any]) -> None:
        key = layout.promise_key(spec.tenant, spec.session_id, what)
        data = json.dumps({"version": VERSION, **content}, allow_nan=False).encode()
        if not self._store.put_if_absent(key, data) and self._store.get(key) != data:
            raise Conflict(
                f"another service has taken {what} of session {spec.session_id}",
                remedy="run one service on an output",
            )

    def _get(self, key: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._store.get(key))
        if (version := content.pop("version", None)) != VERSION:
            raise UsageError(
                f"{self._store.uri(key)} has version {version!r}, and this program reads {VERSION}",
                field="out",
                remedy="continue with the release that wrote it",
            )
        return content


def describe(control: Control) -> dict[str, Any]:
    """``control`` with all that it says: of a camera path its rows, too, since its file may change."""
    more = {"rows": control.rows} if isinstance(control, PoseControl) else {}
    return {**control.describe(), **more}


def read_control(content: Mapping[str, Any]) -> Control:
    """The inverse of ``describe``."""
    if "poses" in content:
        return PoseControl(content["poses"], tuple(tuple(row) for row in content["rows"]))
    if "keys" in content:
        keys = tuple((key["action"], key["speed"]) for key in content["keys"])
        right, up = content["mouse"]
        return MotionControl(keys, (right, up))
    if "action" not in content:
        return NoControl()
    return ActionControl(content["action"], content["speed"])


def request_name(key: str, cells: Mapping[str, Any], upload: Upload | None) -> str:
    """The caller's key and all that is asked: the same key on another request is another request."""
    digest = hashlib.sha256(json.dumps([key, cells], sort_keys=True).encode())
    digest.update(hashlib.sha256(upload.data if upload else b"").digest())
    return digest.hexdigest()

"""Requests become specs, through the same door as a manifest's rows, so that errors name the field and the remedy.

What a caller sends along is stored under its content and read by the encode lane like any other input. What a caller
names by URI is bounded by the service's own rules: only what lies in folders and buckets that the operator named. Files
are looked at once a request, and anew for the next: they change, or come to be, while the service runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.family import family_of
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import Control, Priority, SessionSpec
from gamecraft_core.base.store import Store, scheme_of
from gamecraft_core.dataset import layout
from gamecraft_core.media import bounds
from orchestrator.live.port import Refused, Upload
from orchestrator.manifest import copies
from orchestrator.manifest.actions import FIELD, read_controls
from orchestrator.manifest.fields import Fields, meant, shown
from orchestrator.manifest.rows import COLUMNS, RowErrors, RowReader
from orchestrator.manifest.sources import MAX_POSE_BYTES, PoseRows, Sources

#: Columns that the service sets itself, or that make several sessions of one.
_OURS = ("session_id", "tenant", "priority", copies.FIELD)
ASKED = tuple(column for column in COLUMNS if column not in _OURS)

#: Of a video that does not say how long it is to be.
_USUAL_SECONDS = 4.0

_ELSE = "upload the file, or let the operator set store.access.{}"


class Desk:
    """Validates what callers ask for, and keeps what they send in ``store``. Its calls read and write files."""

    def __init__(
        self, presets: Mapping[str, Preset], default: str, store: Store, options: Mapping[str, Any] | None
    ) -> None:
        """``options``: those of stores, whose access rules bound what URIs may name."""
        self._presets = presets
        self._default = default
        self._store = store
        self._options = options

    def spec(
        self,
        cells: Mapping[str, Any],
        session_id: str,
        tenant: str,
        priority: Priority,
        upload: Upload | None,
        played: bool,
    ) -> SessionSpec:
        """The session that ``cells`` ask for. Raises Refused listing everything wrong with them.

        One of a family that takes no actions cannot be ``played``: it is as long as it says.
        """
        cells = {key: value for key, value in cells.items() if value is not None}
        if unknown := [key for key in cells if key not in ASKED]:
            raise Refused.of([(shown(key).strip("'"), "unknown field", meant(key, ASKED)) for key in unknown])
        if upload is not None:
            if cells.keys() & {"image", "video"}:
                remedy = "leave out image and video, or the upload"
                raise Refused("a start is uploaded and named", field=upload.kind, remedy=remedy)
            cells[upload.kind] = self._keep(upload)
        preset = self._presets.get(str(cells.get("preset", self._default)))
        played = played and (preset is None or family_of(preset.family).length == "actions")
        waits = played and FIELD not in cells
        if FIELD in cells:
            cells[FIELD] = self._with_poses(cells[FIELD])
        row = {**cells, "session_id": session_id, "tenant": tenant, "priority": priority}
        reader = RowReader(self._presets, self._default, _Doors(self._store, self._options))
        result = reader.read({FIELD: "w", **row} if waits else row, row=0)
        if isinstance(result, RowErrors):
            raise Refused.of([(error.field, error.reason, error.remedy) for error in result.errors])
        return replace(result, controls=() if waits else result.controls, open=played)

    def controls(self, actions: Any, spec: SessionSpec) -> tuple[Control, ...]:
        """More controls for ``spec``. Raises Refused."""
        fields = Fields({FIELD: self._with_poses(actions)})
        doors = _Doors(self._store, self._options)
        found = read_controls(
            fields,
            self._presets[spec.preset].control,
            lambda path, place: doors.pose_rows(path, spec.chunk_frames, place),
        )
        if fields.problems:
            raise Refused.of([(each.field, each.reason, each.remedy) for each in fields.problems])
        return found

    def speeds(self, preset: str) -> dict[str, dict[str, float]]:
        """What ``preset`` takes a move and a turn for where none is named, and the most; empty if it is not served."""
        if (found := self._presets.get(preset)) is None or family_of(found.family).length != "actions":
            return {}
        limits = found.control
        return {
            kind: {"default": limits.default_for(action), "most": limits.most_for(action)}
            for kind, action in (("move", "w"), ("turn", "left_rot"))
        }

    def catalogue(self) -> list[dict[str, Any]]:
        """What is served, the default first: how each preset's sessions begin, and how long they are."""
        names = sorted(self._presets, key=lambda name: name != self._default)
        return [_described(self._presets[name]) for name in names]

    def lasting(self, preset: str, seconds: float | None) -> dict[str, Any]:
        """What to ask of ``preset`` (empty: of the default one) for a video of about ``seconds``, or as long as usual.

        A camera walks on. Nothing where the preset is not served, or knows by itself how long is usual.
        """
        found = self._presets.get(preset or self._default)
        if found is None:
            return {}
        video, wanted = found.video, _USUAL_SECONDS if seconds is None else seconds
        match family_of(found.family).length:
            case "actions":
                return {FIELD: f"w*{max(1, round(wanted * video.fps / video.chunk_frames))}"}
            case _ if seconds is None:
                return {}
            case "seconds":
                return {"seconds": seconds}
            case "frames":
                return {"frames": max(1, 4 * round((seconds * video.fps - 1) / 4) + 1)}

    def _with_poses(self, actions: Any) -> Any:
        """``actions`` with camera paths that are given as text, rows and all, kept as files of their own."""
        if not isinstance(actions, list):
            return actions
        return [
            {**each, "poses": self._keep_poses(each["poses"])}
            if isinstance(each, Mapping) and isinstance(each.get("poses"), str) and "\n" in each["poses"]
            else each
            for each in actions
        ]

    def _keep_poses(self, text: str) -> str:
        data = text.encode("utf-8", "replace")
        if len(data) > MAX_POSE_BYTES:
            raise Refused(f"more than {MAX_POSE_BYTES >> 20} MiB", field=FIELD, remedy="give fewer rows")
        return self._put(data, ".txt")

    def _keep(self, upload: Upload) -> str:
        most = bounds.MAX_IMAGE_BYTES if upload.kind == "image" else bounds.MAX_CLIP_BYTES
        if not 0 < len(upload.data) <= most:
            remedy = f"send 1 byte to {most >> 20} MiB"
            raise Refused(f"{len(upload.data)} bytes were sent", field=upload.kind, remedy=remedy)
        return self._put(upload.data, f".{upload.kind}")

    def _put(self, data: bytes, ending: str) -> str:
        key = layout.input_key(hashlib.sha256(data).hexdigest(), ending)
        self._store.put_if_absent(key, data)
        return self._store.uri(key)


def _described(preset: Preset) -> dict[str, Any]:
    family, video = family_of(preset.family), preset.video
    shape = video.model_dump(include={"height", "width", "fps", "chunk_frames", "layout"})
    usual = {
        "actions": None,
        "frames": video.chunk_frames,
        "seconds": video.chunks * video.chunk_frames / video.fps,
    }[family.length]
    return {
        "name": preset.name,
        "family": preset.family,
        "description": preset.description,
        "starts": family.starts,
        "length": {"field": family.length, "default": usual},
        **shape,
    }


class _Doors(Sources):
    """Sources that tell what callers sent from what they only name."""

    def __init__(self, store: Store, options: Mapping[str, Any] | None) -> None:
        super().__init__(store.root, options)
        self._sent = re.compile(re.escape(store.uri(layout.INPUTS)) + r"/[0-9a-f]{64}\.[a-z]+\Z")

    def locate(self, path: str, field: str) -> str:
        uri = super().locate(path, field)
        if not self._sent.match(path):
            if scheme_of(uri) == "file" and not self._access.roots:
                raise BadInput("files of this machine cannot be named", field=field, remedy=_ELSE.format("roots"))
            if scheme_of(uri) != "file" and not self._access.buckets:
                raise BadInput("no bucket's files can be named", field=field, remedy=_ELSE.format("buckets"))
        return uri

    def pose_rows(self, path: str, frames: int, field: str) -> PoseRows:
        self.locate(path, field)
        return super().pose_rows(path, frames, field)

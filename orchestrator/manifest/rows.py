"""One row of a manifest becomes a SessionSpec, or a list of everything that is wrong with it.

Invariants: whatever a row holds, reading it raises nothing but StoreUnavailable; in a SessionSpec nothing is left to a
default and every file it names was there. The manifest and ``jobs.generate`` come through the same door.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from gamecraft_core.base.errors import BadInput, UsageError
from gamecraft_core.base.ids import check_id, digest
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.redact import redact
from gamecraft_core.base.spec import Control, Priority, SessionSpec, Start
from gamecraft_core.timeline.frames import CHUNK_FRAMES, Compression, check_chunk_frames, check_session_compression
from orchestrator.manifest.actions import FIELD as ACTIONS_FIELD
from orchestrator.manifest.actions import read_controls
from orchestrator.manifest.fields import Fields, as_integer, meant, shown
from orchestrator.manifest.sources import Sources

COLUMNS = (
    "session_id",
    "image",
    "video",
    "prompt",
    "negative_prompt",
    "actions",
    "preset",
    "tenant",
    "priority",
    "seed",
    "steps",
    "guidance",
    "shift",
    "height",
    "width",
    "chunk_frames",
)
PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")

#: Pixels a side must be a multiple of: the VAE's 8 times the transformer's patch of 2.
SIZE_STEP = 16
MAX_SIDE = 8192
#: As in SamplingConfig, which guards the preset's own values.
MAX_STEPS, MAX_GUIDANCE, MAX_SHIFT, MAX_SEED = 1000, 30.0, 100.0, 2**63 - 1

_COMPRESSION: dict[int, Compression] = {4: "884", 8: "888", 1: "none"}


@dataclass(frozen=True, slots=True)
class RowError:
    """One thing wrong with one row, as ``errors.parquet`` lists it. Rows count from 1."""

    row: int
    session_id: str
    field: str
    reason: str
    remedy: str
    stage: str = "validate"

    def __str__(self) -> str:
        return f"row {self.row}, {self.field}: {self.reason} ({self.remedy})"


@dataclass(frozen=True, slots=True)
class RowErrors:
    """A refused row: ``errors`` holds at least one."""

    row: int
    session_id: str
    errors: tuple[RowError, ...]


class RowReader:
    """Validates rows against the presets a fleet holds; ``sources`` finds the files they name."""

    def __init__(self, presets: Mapping[str, Preset], default_preset: str, sources: Sources) -> None:
        if default_preset not in presets:
            raise ValueError(f"default preset {default_preset!r} is not among {sorted(presets)}")
        self._presets = presets
        self._default = default_preset
        self._sources = sources

    def read(self, cells: Mapping[str, Any], row: int) -> SessionSpec | RowErrors:
        """Validate one row. Without a ``session_id`` the id is a digest of what the row asks for."""
        fields = Fields(cells)
        for column in cells:
            if column not in COLUMNS:
                name = shown(column)
                fields.refuse(name.strip("'") or "row", f"unknown column {name}", meant(column, COLUMNS))
        session_id = _identifier(fields, "session_id", "")
        spec = self._spec(fields, session_id, row)
        if fields.problems:
            return refused(row, session_id, *((p.field, p.reason, p.remedy) for p in fields.problems))
        return spec

    def spec_from_fields(self, cells: Mapping[str, Any]) -> SessionSpec:
        """One session from named values; UsageError listing everything wrong with them."""
        result = self.read({key: value for key, value in cells.items() if value is not None}, row=1)
        if isinstance(result, SessionSpec):
            return result
        first, *rest = result.errors
        if not rest:
            raise UsageError(first.reason, field=first.field, remedy=first.remedy)
        raise UsageError("; ".join(f"{e.field}: {e.reason} ({e.remedy})" for e in result.errors))

    def _spec(self, fields: Fields, session_id: str, row: int) -> SessionSpec:
        preset = self._presets[fields.choice("preset", self._default, self._presets, "preset")]
        try:
            check_session_compression(_COMPRESSION[preset.vae.time_compression_ratio])
        except BadInput as error:
            fields.refuse("preset", error.message, error.remedy)
        written, start = self._start(fields)
        sampling, video = preset.sampling, preset.video
        height, width = _size(fields, preset)
        chunk_frames = _chunk_frames(fields, preset)
        controls = read_controls(
            fields, preset.control, lambda path, place: self._sources.pose_rows(path, chunk_frames, place)
        )
        settings: dict[str, Any] = {
            "preset": preset.name,
            "prompt": _prompt(fields),
            "negative_prompt": fields.text("negative_prompt", sampling.negative_prompt),
            "seed": fields.integer("seed", sampling.seed, 0, MAX_SEED),
            "steps": fields.integer("steps", sampling.steps, 1, MAX_STEPS),
            "guidance": fields.number("guidance", sampling.guidance, 1.0, MAX_GUIDANCE),
            "shift": fields.number("shift", sampling.shift, 0.0, MAX_SHIFT, open_low=True),
            "height": height,
            "width": width,
            "chunk_frames": chunk_frames,
            "fps": video.fps,
        }
        priority = fields.choice("priority", "batch", PRIORITIES, "priority")
        tenant = _identifier(fields, "tenant", "default")
        if not session_id and not fields.problems:
            session_id = _derived_id(settings, start.kind, written, controls)
        return SessionSpec(
            session_id=session_id,
            start=start,
            controls=controls,
            tenant=tenant,
            priority=cast(Priority, priority),
            row=row,
            **settings,
        )

    def _start(self, fields: Fields) -> tuple[str, Start]:
        """The path as written, and the start with its absolute URI, looked at."""
        kind: Literal["image", "video"] = "video" if fields.has("video") else "image"
        if fields.has("image") == fields.has("video"):
            what = "both are given" if fields.has("image") else "neither is given"
            fields.refuse("image", f"a session starts from an image or a video, and {what}", "give exactly one of them")
            return "", Start(kind, "")
        noted = len(fields.problems)
        path = fields.text(kind, "", max_length=4096)
        uri = ""
        if len(fields.problems) == noted:
            try:
                uri = self._sources.locate(path, kind)
                check = self._sources.check_image if kind == "image" else self._sources.check_video
                check(uri, kind)
            except BadInput as error:
                fields.caught(error, kind)
        return path, Start(kind, uri)


def refused(row: int, session_id: str, *problems: tuple[str, str, str]) -> RowErrors:
    """A refused row from its (field, reason, remedy) problems, whose reasons may quote what somebody wrote."""
    errors = (RowError(row, session_id, field, redact(reason), remedy) for field, reason, remedy in problems)
    return RowErrors(row, session_id, tuple(errors))


def check_preset(preset: Preset) -> None:
    """Raise BadInput where a preset's own defaults could not start a session."""
    if preset.family != "gamecraft":
        why = f"sessions of the family {preset.family} cannot be run yet"
        raise BadInput(why, field="family", remedy="choose a preset of the family gamecraft")
    check_session_compression(_COMPRESSION[preset.vae.time_compression_ratio])
    video, control = preset.video, preset.control
    if problem := _size_problem(video.height, video.width, video.max_pixels):
        raise BadInput(problem[1], field=f"video.{problem[0]}", remedy=problem[2])
    try:
        check_chunk_frames(video.chunk_frames)
    except BadInput as error:
        raise BadInput(error.message, field="video.chunk_frames", remedy=error.remedy) from error
    for name, action in (("default_speed", "w"), ("default_rotation_speed", "left_rot")):
        default, high = control.default_for(action), control.most_for(action)
        if not 0 <= control.speed_min <= default <= high:
            blamed = name if getattr(control, name) is not None else "default_speed"
            raise BadInput(
                f"default speed {default:g} is outside {control.speed_min:g} to {high:g}",
                field=f"control.{blamed}",
                remedy="keep 0 <= speed_min <= default_speed <= speed_max, and rotations' within rotation_speed_max",
            )


def _size(fields: Fields, preset: Preset) -> tuple[int, int]:
    noted = len(fields.problems)
    height = fields.integer("height", preset.video.height, SIZE_STEP, MAX_SIDE)
    width = fields.integer("width", preset.video.width, SIZE_STEP, MAX_SIDE)
    problem = _size_problem(height, width, preset.video.max_pixels)
    if problem and len(fields.problems) == noted:
        fields.refuse(*problem)
    return height, width


def _size_problem(height: int, width: int, max_pixels: int) -> tuple[str, str, str] | None:
    """(field, reason, remedy) where no session can have this size."""
    for name, side in (("height", height), ("width", width)):
        if side % SIZE_STEP:
            below = max(SIZE_STEP, side - side % SIZE_STEP)
            near = " or ".join(str(value) for value in sorted({below, side - side % SIZE_STEP + SIZE_STEP}))
            return name, f"{side} is not a multiple of {SIZE_STEP}", f"use {near}"
    if height * width > max_pixels:
        return "height", f"{height} x {width} is more than {max_pixels} pixels", "use a smaller height or width"
    return None


def _chunk_frames(fields: Fields, preset: Preset) -> int:
    value = fields.get("chunk_frames")
    frames = preset.video.chunk_frames if value is None else as_integer(value)
    if frames in CHUNK_FRAMES:
        return frames
    remedy = f"use {' or '.join(map(str, CHUNK_FRAMES))}"
    fields.refuse("chunk_frames", f"a chunk of {shown(value)} frames is not possible", remedy)
    return preset.video.chunk_frames


def _prompt(fields: Fields) -> str:
    noted = len(fields.problems)
    prompt = fields.text("prompt", "")
    if not prompt.strip() and len(fields.problems) == noted:
        fields.refuse("prompt", "there is no prompt", "describe the scene in a sentence")
    return prompt


def _identifier(fields: Fields, field: str, default: str) -> str:
    value = fields.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        value = shown(value)
    if value is None:
        return default
    if not isinstance(value, str):
        fields.refuse(field, f"{shown(value)} is not text", "write it as a string")
        return default
    try:
        return check_id(value, field)
    except BadInput as error:
        fields.refuse(field, f"{shown(value)} is not a legal id", error.remedy)
        return default


def _derived_id(settings: Mapping[str, Any], kind: str, written: str, controls: tuple[Control, ...]) -> str:
    """A digest of the resolved row: paths as written, so that it does not change when the manifest's folder moves."""
    return digest({**settings, kind: written, ACTIONS_FIELD: [control.describe() for control in controls]})

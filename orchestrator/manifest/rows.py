"""One row of a manifest becomes a SessionSpec, or a list of everything that is wrong with it.

Invariants: whatever a row holds, reading it raises nothing but StoreUnavailable; in a SessionSpec nothing is left to a
default and every file it names was there. The manifest and ``jobs.generate`` come through the same door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, Literal, cast

from gamecraft_core.base.errors import BadInput, UsageError
from gamecraft_core.base.family import Family, family_of
from gamecraft_core.base.ids import check_id, digest
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.redact import redact
from gamecraft_core.base.spec import Control, Priority, SessionSpec, Start
from gamecraft_core.timeline.frames import Compression, check_session_compression
from gamecraft_core.timeline.sections import nearest_bucket
from orchestrator.manifest import copies
from orchestrator.manifest.actions import FIELD as ACTIONS_FIELD
from orchestrator.manifest.fields import Fields, meant, shown
from orchestrator.manifest.lengths import check_length, read_length
from orchestrator.manifest.sizes import Size, read_size, size_problem, usual_shift
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
    "frames",
    "seconds",
    "videos",
    "embedded_guidance",
)
_STARTS: tuple[Literal["image", "video"], ...] = ("image", "video")
PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")

#: As in SamplingConfig, which guards the preset's own values.
MAX_STEPS, MAX_GUIDANCE, MAX_EMBEDDED, MAX_SHIFT, MAX_SEED = 1000, 30.0, 100.0, 100.0, 2**63 - 1

#: What a spec says of itself where nobody says otherwise.
_DEFAULTS = {field.name: field.default for field in dataclass_fields(SessionSpec)}

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

    def read(self, cells: Mapping[str, Any], row: int, copy: int = 0) -> SessionSpec | RowErrors:
        """Validate one row. Without a ``session_id`` the id is a digest of what the row asks for.

        ``copy`` is which of its videos is meant: the seed rises with it, and a given id gets -2, -3, ...
        """
        fields = Fields(cells)
        for column in cells:
            if column not in COLUMNS:
                name = shown(column)
                fields.refuse(name.strip("'") or "row", f"unknown column {name}", meant(column, COLUMNS))
        session_id = _identifier(fields, "session_id", "")
        session_id = f"{session_id}-{copy + 1}" if session_id and copy else session_id
        spec = self._spec(fields, session_id, row, copy)
        unknown = [problem for problem in fields.problems if problem.field == "preset"]
        if unknown:  # what else is wrong was judged by another preset
            fields.problems = unknown
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

    def _spec(self, fields: Fields, session_id: str, row: int, copy: int) -> SessionSpec:
        preset = self._presets[fields.choice("preset", self._default, self._presets, "preset")]
        try:
            check_session_compression(_COMPRESSION[preset.vae.time_compression_ratio])
        except BadInput as error:
            fields.refuse("preset", error.message, error.remedy)
        family = family_of(preset.family)
        written, start = self._start(fields, family)
        sampling, video = preset.sampling, preset.video
        asked = read_size(fields, preset)
        size = self._shaped(fields, preset, start, asked)
        controls, chunk_frames = read_length(fields, preset, family, size, self._sources.pose_rows)
        settings: dict[str, Any] = {
            "preset": preset.name,
            "prompt": _prompt(fields),
            "negative_prompt": fields.text("negative_prompt", sampling.negative_prompt),
            "seed": _seed(fields, sampling.seed, copy),
            "steps": fields.integer("steps", sampling.steps, 1, MAX_STEPS),
            "guidance": fields.number("guidance", sampling.guidance, 1.0, MAX_GUIDANCE),
            "shift": fields.number("shift", usual_shift(preset, size), 0.0, MAX_SHIFT, open_low=True),
            "height": size[0],
            "width": size[1],
            "chunk_frames": chunk_frames,
            "fps": video.fps,
        }
        more = _more(fields, preset)
        priority = fields.choice("priority", "batch", PRIORITIES, "priority")
        tenant = _identifier(fields, "tenant", "default")
        if not session_id and not fields.problems:
            # Without what follows from the image's shape: the id is the same when the image is gone.
            shift = fields.number("shift", usual_shift(preset, asked), 0.0, MAX_SHIFT)
            row_says = {**settings, **more, "height": asked[0], "width": asked[1], "shift": shift}
            session_id = _derived_id(row_says, start.kind, written, controls)
        return SessionSpec(
            session_id=session_id,
            start=start,
            controls=controls,
            tenant=tenant,
            priority=cast(Priority, priority),
            row=row,
            keeps_start=family.keeps_start,
            **settings,
            **more,
        )

    def _start(self, fields: Fields, family: Family) -> tuple[str, Start]:
        """The path as written, and the start with its absolute URI, looked at."""
        given = [kind for kind in _STARTS if fields.has(kind)]
        if not given and "none" in family.starts:
            return "", Start("none", "")
        kind = given[0] if given else "image"
        if len(given) != 1 or kind not in family.starts:
            fields.refuse(kind, *_wrong_start(given, [each for each in family.starts if each != "none"]))
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
                uri = ""
        return path, Start(kind, uri)

    def _shaped(self, fields: Fields, preset: Preset, start: Start, asked: Size) -> Size:
        """The size: where the row gives none and the preset has buckets, the one nearest in shape to the image."""
        bucket = preset.video.bucket
        if not bucket or start.kind != "image" or not start.uri or fields.has("height") or fields.has("width"):
            return asked
        try:
            seen = self._sources.image_size(start.uri, "image")
        except BadInput as error:  # it was there when its row was checked
            fields.caught(error, "image")
            return asked
        size = nearest_bucket(*seen, bucket) if seen else asked
        if problem := size_problem(*size, preset.video.max_pixels):
            fields.refuse(*problem)
        return size


def _wrong_start(given: Sequence[str], allowed: Sequence[str]) -> tuple[str, str]:
    """Reason and remedy where a session cannot begin from what is ``given``."""
    if len(given) == 2:
        what = "both are given"
    elif given:
        what = f"a{'n' * (given[0] == 'image')} {given[0]} is given"
    else:
        what = "neither is given" if allowed[1:] else "none is given"
    if not allowed:
        return f"a session of this preset starts from its prompt alone, and {what}", "leave it out"
    remedy = "give exactly one of them" if allowed[1:] else f"give one {allowed[0]}"
    return f"a session starts from an {' or a '.join(allowed)}, and {what}", remedy


def refused(row: int, session_id: str, *problems: tuple[str, str, str]) -> RowErrors:
    """A refused row from its (field, reason, remedy) problems, whose reasons may quote what somebody wrote."""
    errors = (RowError(row, session_id, field, redact(reason), remedy) for field, reason, remedy in problems)
    return RowErrors(row, session_id, tuple(errors))


def check_preset(preset: Preset) -> None:
    """Raise BadInput where a preset's own defaults could not start a session."""
    check_session_compression(_COMPRESSION[preset.vae.time_compression_ratio])
    video, control = preset.video, preset.control
    if problem := size_problem(video.height, video.width, video.max_pixels):
        raise BadInput(problem[1], field=f"video.{problem[0]}", remedy=problem[2])
    check_length(preset, family_of(preset.family).length)
    for name, action in (("default_speed", "w"), ("default_rotation_speed", "left_rot")):
        default, high = control.default_for(action), control.most_for(action)
        if not 0 <= control.speed_min <= default <= high:
            blamed = name if getattr(control, name) is not None else "default_speed"
            raise BadInput(
                f"default speed {default:g} is outside {control.speed_min:g} to {high:g}",
                field=f"control.{blamed}",
                remedy="keep 0 <= speed_min <= default_speed <= speed_max, and rotations' within rotation_speed_max",
            )


def _seed(fields: Fields, default: int, copy: int) -> int:
    videos = fields.integer(copies.FIELD, 1, 1, copies.MOST)
    return fields.integer("seed", default, 0, MAX_SEED - videos + 1) + copy


def _more(fields: Fields, preset: Preset) -> dict[str, Any]:
    """Settings that not every family has; only what is not the spec's own default, so that ids stay what they were."""
    sampling, told = preset.sampling, preset.dit.guidance_embed
    if fields.has("embedded_guidance") and not told:
        remedy = "leave it out, or give guidance"
        fields.refuse("embedded_guidance", f"the model of {preset.name} is not told its guidance", remedy)
    asked = {
        "layout": preset.video.layout,
        "embedded_guidance": fields.number("embedded_guidance", sampling.embedded_guidance, 0.0, MAX_EMBEDDED),
        "guidance_rescale": sampling.guidance_rescale,
        "flow_reverse": sampling.flow_reverse,
        "tea_cache": sampling.tea_cache,
    }
    return {name: value for name, value in asked.items() if value != _DEFAULTS[name]}


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

"""A run's configuration: preset, fleet, limits and options, resolved to one frozen value that is stored with the run.

Invariants: nothing is read from the environment; whatever a file or ``--set`` holds, a mistake in it is a UsageError
that names the key and a remedy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from actors.fleet_spec import FleetSpec
from gamecraft_core.base.access import Access
from gamecraft_core.base.errors import BadInput, UsageError
from gamecraft_core.base.logs import Form
from gamecraft_core.base.preset import Preset, Strict
from gamecraft_core.base.redact import redact
from gamecraft_core.base.telemetry import Telemetry
from jobs.overrides import apply_sets, explain, nearest
from orchestrator.limits import Limits
from orchestrator.live.limits import ServiceLimits
from orchestrator.manifest.rows import check_preset

PRESETS = Path(__file__).resolve().parent / "presets"
FLEETS = PRESETS / "fleets"

#: Preset keys that may name a file beside the preset's own.
PATH_KEYS = (
    ("text", "llm"),
    ("text", "clip"),
    ("text", "rewrite"),
    ("weights", "dit"),
    ("weights", "vae"),
    ("vision", "path"),
)
_BUILT_IN = "presets:"

Model = TypeVar("Model", bound=BaseModel)


class AccessOptions(Strict):
    """Which places the run may read and write: inputs, manifest, weights and output alike. Fits ``Access``."""

    schemes: tuple[Literal["file", "s3"], ...] = Field(default=("file", "s3"), min_length=1)
    #: S3 buckets by name; none named: any.
    buckets: tuple[str, ...] = ()
    #: Local folders, symbolic links resolved; none named: any.
    roots: tuple[str, ...] = ()

    @field_validator("roots")
    @classmethod
    def _in_full(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_absolute(root, Path.cwd()) for root in roots)


class StoreOptions(Strict):
    """How stores are reached, and which. Fits ``open_store``; credentials come from the environment alone."""

    endpoint_url: str | None = None
    access: AccessOptions = AccessOptions()


class OutputOptions(Strict):
    """What is written, beside the videos, and whether a session may change its SP degree."""

    keep_latents: bool = False
    rows_per_shard: int = Field(default=1000, ge=1, le=1_000_000)
    allow_sp_moves: bool = False


class TelemetryOptions(Strict):
    """What the run's processes tell, and how; it shapes no output."""

    #: ``json``: one object a line, actors' lines in Ray's log files included.
    logs: Form = "text"
    #: An OpenTelemetry collector's OTLP/HTTP address, as in http://HOST:4318/v1/traces; none: no spans are made.
    traces: str | None = Field(default=None, pattern=r"^https?://[^\s/]+(/\S*)?$")

    def of(self, run: str) -> Telemetry:
        return Telemetry(run=run, **self.model_dump())


class RunConfig(Strict):
    """Everything that a run was asked for, apart from its manifest and its output."""

    preset: Preset
    #: What the fleet holds beside ``preset``; a manifest row may name any of them.
    other_presets: tuple[Preset, ...] = ()
    fleet: FleetSpec
    limits: Limits = Limits()
    service: ServiceLimits = ServiceLimits()
    store: StoreOptions = StoreOptions()
    output: OutputOptions = OutputOptions()
    telemetry: TelemetryOptions = TelemetryOptions()

    @property
    def presets(self) -> dict[str, Preset]:
        """By name, the run's own first."""
        return {preset.name: preset for preset in (self.preset, *self.other_presets)}


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def fleet_names() -> list[str]:
    return sorted(path.stem for path in FLEETS.glob("*.yaml"))


def load_preset(name_or_path: str) -> Preset:
    """A built-in preset, or one from a YAML file.

    Its './' and '../' paths are relative to that file, other relative ones to the working directory.
    """
    path = _find(name_or_path, PRESETS, preset_names(), "preset")
    values = _read_yaml(path)
    for group, key in PATH_KEYS:
        section = values.get(group)
        if isinstance(section, dict) and isinstance(section.get(key), str):
            beside = section[key].startswith(("./", "../"))
            section[key] = _absolute(section[key], path.parent if beside else Path.cwd())
    return _build(Preset, values, f"preset {path.stem}")


def load_fleet(name_or_path: str) -> FleetSpec:
    """A built-in fleet, or one from a YAML file."""
    path = _find(name_or_path, FLEETS, fleet_names(), "fleet")
    return _build(FleetSpec, _read_yaml(path), f"fleet {path.stem}")


def resolve(preset: str, fleet: str = "laptop", sets: Sequence[str] = (), *, keep_latents: bool = False) -> RunConfig:
    """The configuration of a run; ``sets`` are ``KEY=VALUE`` overrides and win over everything else."""
    base = RunConfig(
        preset=load_preset(preset), fleet=load_fleet(fleet), output=OutputOptions(keep_latents=keep_latents)
    )
    values = apply_sets(RunConfig, base.model_dump(exclude={"other_presets"}), sets)
    for group, key in PATH_KEYS:
        section = values["preset"][group]
        if section and section[key]:
            section[key] = _absolute(section[key], Path.cwd())
    config = _build(RunConfig, values, "the configuration")
    others = tuple(load_preset(name) for name in config.fleet.presets if name not in (preset, config.preset.name))
    config = config.model_copy(update={"other_presets": others})
    if len(config.presets) <= len(others):
        raise UsageError("two presets of the fleet have one name", field="fleet.presets", remedy="rename one")
    access = Access.of(config.store.model_dump())
    for each in config.presets.values():
        _check(each, access)
    return config


def with_endpoint(config: RunConfig, environment: Mapping[str, str]) -> RunConfig:
    """``config`` with the S3 endpoint that the environment names, where no setting does.

    Lanes may live on machines that do not share this environment, so the endpoint travels with the store's options.
    """
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if config.store.endpoint_url or not endpoint:
        return config
    return config.model_copy(update={"store": config.store.model_copy(update={"endpoint_url": endpoint})})


def identity(config: RunConfig) -> dict[str, Any]:
    """The part of ``config`` that shapes the output: an output belongs to one manifest and one identity.

    Where a run happens does not count: not its fleet, limits, store or device, nor the folder this code lies in, nor
    where weights wait.
    """
    values = public(config)
    for preset in (values["preset"], *values["other_presets"]):
        del preset["description"]
        for key in ("device", "offload"):
            del preset["runtime"][key]
        for group, key in PATH_KEYS:
            if preset[group] and preset[group][key]:
                path = preset[group][key].replace(f"{PRESETS}{os.sep}", _BUILT_IN)
                preset[group][key] = path.removeprefix(f"{Path.cwd()}{os.sep}")
    output = {key: values["output"][key] for key in ("keep_latents", "rows_per_shard")}
    return {"preset": values["preset"], "other_presets": values["other_presets"], "output": output}


def public(config: RunConfig) -> dict[str, Any]:
    """``config`` as JSON values that may be shown and stored: without credentials."""
    cleaned: dict[str, Any] = _redacted(config.model_dump(mode="json"))
    return cleaned


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def _absolute(path: str, folder: Path) -> str:
    """A path below ``folder`` in full, since lanes run in other folders; URIs and absolute paths as they are."""
    return path if "://" in path else os.path.normpath(folder / Path(path).expanduser())


def _check(preset: Preset, access: Access) -> None:
    """Refuse a preset whose own defaults no session could start with, or whose files may not be read."""
    for group, key in PATH_KEYS:
        place = getattr(getattr(preset, group), key, None) or ""
        if place and not place.startswith(f"{PRESETS}{os.sep}"):  # what the product brings along is always there
            access.check(place, f"{group}.{key}")
    try:
        check_preset(preset)
    except BadInput as error:
        raise UsageError(f"preset {preset.name}: {error.message}", field=error.field, remedy=error.remedy) from error


def _find(name_or_path: str, folder: Path, names: Sequence[str], what: str) -> Path:
    if name_or_path in names:
        return folder / f"{name_or_path}.yaml"
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path).absolute()
    raise UsageError(f"unknown {what} {name_or_path!r}", field=what, remedy=nearest(name_or_path, names))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check the path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not readable YAML: {error}", remedy="correct it") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no keys", remedy="write KEY: VALUE lines")
    return values


def _build(model: type[Model], values: dict[str, Any], what: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error, model, what) from error

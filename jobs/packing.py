"""What of this machine a submitted job needs: the code, and what its arguments name here.

Invariants: nothing is packed but the code, configuration files that arguments name, and what the user packs on purpose;
an argument that names a place keeps its meaning or is made absolute, for the cluster to find where it sees the path.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.version import STAMP, code_version
from jobs.config import PATH_KEYS, fleet_names, load_fleet, load_preset, preset_names

_CODE = Path(__file__).resolve().parents[1]
_PACKAGES = ("actors", "gamecraft_core", "jobs", "orchestrator")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")
_PACKED, _CONFIG = "packed", "config"

#: Options that name something which the job reads or writes where it runs.
_PLACES = ("--manifest", "--out", "--image", "--video", "--tokens")
_SETS_OF_PATHS = tuple(f"{group}.{key}" for group, key in PATH_KEYS)


def pack_code(folder: Path) -> None:
    """Put the product's packages below ``folder``, and say there which version they are."""
    for name in _PACKAGES:
        shutil.copytree(_CODE / name, folder / name, ignore=_LEFT_OUT)
    (folder / STAMP).write_text(code_version() + "\n")


@dataclass(frozen=True, slots=True)
class Luggage:
    """Files that travel with a job, below ``folder``; ``packs`` are those that the user names.

    ``left`` collects local paths that stay where they are, for the user to hear of.
    """

    folder: Path
    packs: Sequence[str] = ()
    left: list[str] = field(default_factory=list)

    def pack(self) -> None:
        """Copy what the user packs."""
        for name, path in self._packs().items():
            if not path.exists():
                raise UsageError(f"{path} does not exist", field="pack", remedy="check the path")
            target = self.folder / _PACKED / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target)
            else:
                shutil.copy2(path, target)

    def arguments(self, given: Sequence[str]) -> list[str]:
        """``given`` as the job has to be called on the cluster; presets and fleets in files of one's own are packed."""
        told: Mapping[str, Callable[[str], str]] = {
            **dict.fromkeys(_PLACES, self._place),
            "--preset": self._preset,
            "--fleet": self._fleet,
            "--set": self._setting,
        }
        return list(_mapped(given, told))

    def _packs(self) -> dict[str, Path]:
        paths = [Path(each).expanduser().absolute() for each in self.packs]
        by_name = {path.name: path for path in paths}
        if len(by_name) < len(set(paths)):
            raise UsageError("two things to pack have one name", field="pack", remedy="rename one")
        return by_name

    def _place(self, value: str) -> str:
        if "://" in value:
            return value
        path = Path(value).expanduser().absolute()
        for name, packed in self._packs().items():
            if path.is_relative_to(packed):
                return str(Path(_PACKED, name, path.relative_to(packed)))
        self.left.append(str(path))
        return str(path)

    def _preset(self, value: str) -> str:
        """A preset of one's own, with the paths in it in full."""
        if value in preset_names():
            return value
        values = load_preset(value).model_dump(mode="json")
        for group, key in PATH_KEYS:
            if values[group] and values[group][key]:
                values[group][key] = self._place(values[group][key])
        return self._written("presets", value, values)

    def _fleet(self, value: str) -> str:
        if value in fleet_names():
            return value
        values = load_fleet(value).model_dump(mode="json")
        values["presets"] = [self._preset(each) for each in values["presets"]]
        return self._written("fleets", value, values)

    def _written(self, kind: str, value: str, content: object) -> str:
        relative = Path(_CONFIG, kind, Path(value).with_suffix(".yaml").name)
        (self.folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / relative).write_text(yaml.safe_dump(content), encoding="utf-8")
        return str(relative)

    def _setting(self, value: str) -> str:
        key, equals, path = value.partition("=")
        of_a_path = key.strip().removeprefix("preset.") in _SETS_OF_PATHS
        return f"{key}={self._place(path)}" if equals and path and of_a_path else value


def _mapped(given: Sequence[str], told: Mapping[str, Callable[[str], str]]) -> Iterator[str]:
    """``given`` with the values of some options changed: ``--option value`` and ``--option=value``."""
    rest = iter(given)
    for each in rest:
        name, equals, value = each.partition("=")
        change = told.get(name)
        if change is None:
            yield each
        elif equals:
            yield f"{name}={change(value)}"
        else:
            yield each
            if (following := next(rest, None)) is not None:
                yield change(following)

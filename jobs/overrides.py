"""``--set a.b=c``: one value of the configuration by its dotted name, and the names that exist.

A key is a path from RunConfig's root; where its first part is a group of the preset (``sampling.steps``) the preset is
meant. Values are YAML; where the field takes text, the text is taken as written.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from gamecraft_core.base.errors import UsageError

_PRESET = "preset"


def apply_sets(model: type[BaseModel], values: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """``values`` (a dump of ``model``) with every ``KEY=VALUE`` of ``sets`` put in; later ones win. Not validated.

    A field that the dump leaves out cannot be set.
    """
    leaves = {name: annotation for name, annotation in _leaves(model) if name.partition(".")[0] in values}
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item!r} has no value", field="--set", remedy="write --set KEY=VALUE")
        path, annotation = _find(leaves, key.strip())
        *groups, leaf = path
        target = values
        for group in groups:
            if target[group] is None:
                target[group] = {}
            target = target[group]
        target[leaf] = _value(text, annotation, key)
    return values


def explain(error: ValidationError, model: type[BaseModel], what: str) -> UsageError:
    """Every problem of a validation as one UsageError: field, what is wrong with it, what to do."""
    problems = [_explain_one(dict(item), model) for item in error.errors(include_url=False)]
    if len(problems) == 1:
        field, reason, remedy = problems[0]
        return UsageError(f"{what}: {field}: {reason}", remedy=remedy)
    lines = "".join(f"\n  {field}: {reason} ({remedy})" for field, reason, remedy in problems)
    return UsageError(f"{what} has {len(problems)} problems:{lines}")


def nearest(name: str, known: Sequence[str]) -> str:
    """A remedy for an unknown name."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"


def _find(leaves: Mapping[str, Any], key: str) -> tuple[list[str], Any]:
    """Path from the root and annotation of the leaf that ``key`` names."""
    for candidate in (key, f"{_PRESET}.{key}"):
        if candidate in leaves:
            return candidate.split("."), leaves[candidate]
    known = [_short(name) for name in leaves]
    inside = [name for name in (*known, *leaves) if name.startswith(f"{key}.")]
    if inside:
        raise UsageError(f"{key!r} is a group of keys", field="--set", remedy=f"set one of {', '.join(inside)}")
    raise UsageError(f"unknown key {key}", field="--set", remedy=_meant_key(_short(key), known))


def _short(name: str) -> str:
    return name.removeprefix(f"{_PRESET}.") if name.count(".") > 1 else name


def _meant_key(key: str, known: Sequence[str]) -> str:
    """The nearest key; else the keys of the same group; else the groups."""
    near = get_close_matches(key, known, n=1, cutoff=0.75)
    if near:
        return f"did you mean {near[0]}?"
    group = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == group]
    return f"use one of {', '.join(siblings or sorted({name.partition('.')[0] for name in known}))}"


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and annotation of every field that is not itself a group."""
    for name, info in model.model_fields.items():
        parts = get_args(info.annotation) if _is_union(info.annotation) else (info.annotation,)
        groups = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        for group in groups:  # one at most, which may be left out
            yield from _leaves(group, f"{prefix}{name}.")
        if not groups:
            yield f"{prefix}{name}", info.annotation


def _value(text: str, annotation: Any, key: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        if _takes_text(annotation):
            return text
        raise UsageError(f"{text!r} is not a YAML value", field=f"--set {key}", remedy="quote it") from error
    return text if _takes_text(annotation) and not isinstance(value, str | None) else value


def _takes_text(annotation: Any) -> bool:
    if _is_union(annotation):
        return any(_takes_text(part) for part in get_args(annotation))
    return annotation is str


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _explain_one(item: dict[str, Any], model: type[BaseModel]) -> tuple[str, str, str]:
    path = [str(part) for part in item["loc"]]
    field = ".".join(path) or "the whole"
    if item["type"] == "extra_forbidden":
        return field, "unknown key", _meant_in(path, model)
    if item["type"] == "missing":
        return field, "required key is missing", "add it"
    reason = str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    if item["type"] == "value_error" or isinstance(given, dict | list):
        return field, reason, "change it"
    return field, f"{given!r} is not possible", reason[:1].lower() + reason[1:]


def _meant_in(path: Sequence[str], model: type[BaseModel]) -> str:
    """The nearest key in the group that ``path`` ends in."""
    group: Any = model
    for part in path[:-1]:
        group = _group_below(group, part)
    if group is None:
        return "remove it"
    return nearest(path[-1], list(group.model_fields))


def _group_below(group: type[BaseModel] | None, part: str) -> type[BaseModel] | None:
    if group is None or part.isdigit():
        return group
    info = group.model_fields.get(part)
    candidates = [info.annotation, *get_args(info.annotation)] if info else []
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)

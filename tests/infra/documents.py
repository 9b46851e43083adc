"""The files under infra/ as values: YAML documents read strictly, and copies of them with one thing changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"

Document = dict[str, Any]
#: Documents by ``Kind/name``.
Folder = Mapping[str, Document]

#: What ``changed`` puts where a value is to be taken away.
GONE = object()


class _Strict(yaml.CSafeLoader):
    """Refuses a key that stands twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read(text: str) -> list[Document]:
    """Every document in ``text``."""
    return list(yaml.load_all(text, Loader=_Strict))


def kuberay() -> Folder:
    """All of infra/kuberay."""
    return named(each for path in sorted(INFRA.glob("kuberay/*.yaml")) for each in read(path.read_text("utf-8")))


def named(documents: Iterable[Document]) -> Folder:
    """``documents`` by ``Kind/name``; two of one name are refused."""
    made: dict[str, Document] = {}
    for each in documents:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if name in made:
            raise ValueError(f"{name} stands twice")
        made[name] = each
    return made


def changed(folder: Folder, name: str, pointer: str, value: Any) -> Folder:
    """``folder`` with ``value`` where ``pointer`` (RFC 6901) points in document ``name``; GONE takes away."""
    made = dict(folder)
    inner = made[name] = json.loads(json.dumps(made[name]))
    *way, last = [part.replace("~1", "/") for part in pointer.lstrip("/").split("/")]
    for part in way:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    if isinstance(inner, list):
        inner[int(last)] = value
    elif value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return made


def found(value: Any, key: str) -> Iterator[Any]:
    """Whatever stands under ``key`` anywhere in ``value``."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        value = value.values()
    elif not isinstance(value, list):
        return
    for each in value:
        yield from found(each, key)

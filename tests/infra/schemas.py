"""Every document against the schema of its kind, with unknown keys refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from tests.infra.documents import Document, Folder

#: Of Kubernetes; the kinds in use here have been the same for long.
KUBERNETES = "1.33"

_FOLDER = Path(__file__).with_name("schemas")
_FILES = {"ray.io/v1": "kuberay.json", "monitoring.coreos.com/v1": "monitoring.json"}
_METADATA = {"name", "namespace", "labels", "annotations"}


def problems(folder: Folder) -> Iterator[str]:
    """What an API server would refuse, or drop in silence."""
    for name, document in folder.items():
        yield from (f"{name}: {problem}" for problem in of(document))


def of(document: Document) -> Iterator[str]:
    """The same of one document."""
    if unknown := document["metadata"].keys() - _METADATA:
        yield f"metadata has {', '.join(sorted(unknown))}"
    file = _FILES.get(document["apiVersion"])
    if file is None:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as refused:
            yield f"{'/'.join(map(str, refused.path))}: {refused.message}"
        return
    for error in _validator(file, document["kind"]).iter_errors(document):
        for deepest in _leaves(error):
            yield f"{'/'.join(map(str, deepest.absolute_path))}: {deepest.message}"


def _leaves(error: Any) -> Iterator[Any]:
    """Of a choice between schemas every reason, else the error itself."""
    if not error.context:
        yield error
    for inner in error.context:
        yield from _leaves(inner)


@lru_cache
def _validator(file: str, kind: str) -> Any:
    schema = json.loads((_FOLDER / file).read_text("utf-8"))
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{kind}", **schema})

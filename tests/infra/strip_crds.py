"""Makes tests/infra/schemas/kuberay.json from KubeRay's CustomResourceDefinitions: what validation needs, and no more.

    python -m tests.infra.strip_crds DIR

DIR holds ``ray.io_rayclusters.yaml``, ``ray.io_rayjobs.yaml`` and ``ray.io_rayservices.yaml`` of SOURCE's release.
Stricter than an API server, which drops unknown keys in silence: here they are refused.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

SOURCE = (
    "ray-project/kuberay v1.7.0, ray-operator/config/crd/bases; Apache-2.0, copyright the KubeRay authors; stripped"
)
SCHEMAS = Path(__file__).with_name("schemas") / "kuberay.json"

_KEPT = ("anyOf", "enum", "items", "maximum", "minimum", "pattern", "properties", "required", "type")
#: A schema of at least so many characters that occurs again is written once.
_SHARED = 200


def stripped(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` (OpenAPI v3, structural) as a strict JSON schema."""
    made = {key: schema[key] for key in _KEPT if key in schema}
    if "properties" in made:
        made["properties"] = {name: stripped(value) for name, value in schema["properties"].items()}
        filled = {name for name, value in schema["properties"].items() if "default" in value}
        made["required"] = [name for name in schema.get("required", ()) if name not in filled]
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    elif isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = stripped(schema["additionalProperties"])
    if "items" in made:
        made["items"] = stripped(schema["items"])
    if schema.get("nullable"):
        made["type"] = [made["type"], "null"]
    return made


def pooled(schemas: dict[str, Any]) -> dict[str, Any]:
    """``schemas`` as one document in which whatever is long and occurs again stands once, under ``$defs``."""
    times: Counter[str] = Counter()

    def count(value: Any) -> None:
        if isinstance(value, dict):
            times[json.dumps(value, sort_keys=True)] += 1
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            count(each)

    count(schemas)
    pool: dict[str, Any] = {}

    def share(value: Any) -> Any:
        if isinstance(value, list):
            return [share(each) for each in value]
        if not isinstance(value, dict):
            return value
        text = json.dumps(value, sort_keys=True)
        made = {key: share(each) for key, each in value.items()}
        if (
            times[text] < 2 or len(text) < _SHARED or not isinstance(value.get("type"), str)
        ):  # a map may have such a key
            return made
        name = hashlib.sha256(text.encode()).hexdigest()[:10]
        pool[name] = made
        return {"$ref": f"#/$defs/{name}"}

    kinds = {kind: share(schema) for kind, schema in schemas.items()}
    return {"$comment": SOURCE, "$defs": {**kinds, **dict(sorted(pool.items()))}}


def from_folder(folder: Path) -> dict[str, Any]:
    """The document for the definitions in ``folder``, of their version v1."""
    schemas = {}
    for path in sorted(folder.glob("ray.io_*.yaml")):
        definition = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["spec"]
        version = next(each for each in definition["versions"] if each["name"] == "v1")
        schemas[definition["names"]["kind"]] = stripped(version["schema"]["openAPIV3Schema"])
    return pooled(schemas)


if __name__ == "__main__":
    SCHEMAS.write_text(json.dumps(from_folder(Path(sys.argv[1])), separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{SCHEMAS}: {SCHEMAS.stat().st_size} bytes")

"""Nothing that comes from users or checkpoints is unpickled, evaluated or fetched as code: read from the source."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gamecraft_core", "actors", "orchestrator", "jobs")

#: Modules whose loading runs what the data says. ``pickle`` itself is imported in one place, for the name of an error.
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "runpy"}
ALLOWED_IMPORTS = {("gamecraft_core/weights/files.py", "pickle")}
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
UNSAFE_CALLS = {
    ("pickle", "load"),
    ("pickle", "loads"),
    ("pickle", "Unpickler"),
    ("yaml", "load"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("torch", "jit"),
    ("os", "system"),
    ("os", "popen"),
    ("hub", "load"),
}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def problems(path: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            for name in names:
                if name.partition(".")[0] in UNSAFE_MODULES and (path, name) not in ALLOWED_IMPORTS:
                    yield f"{where} imports {name}"
        elif isinstance(node, ast.Call):
            yield from (f"{where} {problem}" for problem in _call_problems(node))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in UNSAFE_CALLS:
                yield f"{where} uses {owner}.{node.attr}"


def _call_problems(call: ast.Call) -> Iterator[str]:
    options = {each.arg: each.value for each in call.keywords}
    function = call.func
    if isinstance(function, ast.Name) and function.id in UNSAFE_NAMES:
        yield f"calls {function.id}"
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        owner, name = "", getattr(function, "attr", "")
    else:
        owner, name = function.value.id, function.attr
    if (owner, name) == ("torch", "load") and not _is(options.get("weights_only"), True):
        yield "calls torch.load without weights_only=True"
    if owner in ("np", "numpy") and name in ("load", "fromregex", "memmap") and "allow_pickle" in options:
        yield f"calls {owner}.{name} with allow_pickle"
    for option in ("allow_pickle", "trust_remote_code", "shell"):
        if option in options and not _is(options[option], False):
            yield f"passes {option}"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_loads_unsafely(path: Path) -> None:
    assert list(problems(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import dill",
        "import torch\ntorch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "eval(text)",
        "exec(text)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "torch.hub.load(name)",
        "torch.jit.load(path)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "load = pickle.loads",
    ],
)
def test_the_search_finds_what_it_is_for(line: str) -> None:
    assert list(problems("a.py", line))


def test_numpy_does_not_unpickle_by_default() -> None:
    import inspect

    import numpy as np

    assert inspect.signature(np.load).parameters["allow_pickle"].default is False


def test_every_package_is_searched() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(PACKAGES)
    assert all(importlib.util.find_spec(package) for package in PACKAGES)
    assert len(sources()) > 100

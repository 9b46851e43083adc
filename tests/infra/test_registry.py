"""Every configuration file under infra/ has a test that validates it.

Each ``tests/infra/test_*.py`` that validates files says which: ``VALIDATES``, globs below infra/.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest

from tests.infra.documents import INFRA

_CONFIGURATION = {".json", ".yaml", ".yml"}


def claimed() -> dict[str, tuple[str, ...]]:
    """The globs of each test module."""
    modules = [import_module(f"tests.infra.{path.stem}") for path in Path(__file__).parent.glob("test_*.py")]
    return {module.__name__: module.VALIDATES for module in modules if hasattr(module, "VALIDATES")}


def unclaimed(folder: Path, globs: Iterable[str]) -> set[str]:
    """Configuration files below ``folder`` that no glob names."""
    known = {path for glob in globs for path in folder.glob(glob)}
    files = {path for path in folder.rglob("*") if path.suffix in _CONFIGURATION or "Dockerfile" in path.name}
    return {str(path.relative_to(folder)) for path in files - known}


def test_every_file_has_a_test() -> None:
    assert unclaimed(INFRA, [glob for globs in claimed().values() for glob in globs]) == set()


@pytest.mark.parametrize(("module", "glob"), [(name, glob) for name, globs in claimed().items() for glob in globs])
def test_every_claim_is_about_files_that_are_there(module: str, glob: str) -> None:
    assert list(INFRA.glob(glob)), f"{module} validates {glob}"


def test_a_file_that_nobody_claims_is_found(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", "d.md", "Dockerfile", "Dockerfile.cpu", "deep/.e.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {"b.yml", "c.json", "Dockerfile", "Dockerfile.cpu", "deep/.e.yaml"}
    assert unclaimed(tmp_path, ["a.*"]) == found
    assert unclaimed(tmp_path, ["*", "deep/.*"]) == set()

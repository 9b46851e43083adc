"""Every configuration file under infra/ has a test that validates it.

Each ``tests/infra/test_*.py`` that validates files says which: ``VALIDATES``, globs below the repository's root.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest

from tests.infra.documents import ROOT

_CONFIGURATION = {".json", ".yaml", ".yml"}


def claimed() -> dict[str, tuple[str, ...]]:
    """The globs of each test module."""
    modules = [import_module(f"tests.infra.{path.stem}") for path in Path(__file__).parent.glob("test_*.py")]
    return {module.__name__: module.VALIDATES for module in modules if hasattr(module, "VALIDATES")}


def unclaimed(folder: Path, globs: Iterable[str]) -> set[str]:
    """Configuration files below ``folder``/infra that no glob names."""
    known = {path for glob in globs for path in folder.glob(glob)}
    files = {
        path for path in (folder / "infra").rglob("*") if path.suffix in _CONFIGURATION or "Dockerfile" in path.name
    }
    return {str(path.relative_to(folder)) for path in files - known}


def test_every_file_has_a_test() -> None:
    assert unclaimed(ROOT, [glob for globs in claimed().values() for glob in globs]) == set()


@pytest.mark.parametrize(("module", "glob"), [(name, glob) for name, globs in claimed().items() for glob in globs])
def test_every_claim_is_about_files_that_are_there(module: str, glob: str) -> None:
    assert list(ROOT.glob(glob)), f"{module} validates {glob}"


def test_a_file_that_nobody_claims_is_found(tmp_path: Path) -> None:
    for name in ("../x.yaml", "a.yaml", "b.yml", "c.json", "d.md", "Dockerfile.cpu", "e/.f.yaml"):
        path = tmp_path / "infra" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {"infra/b.yml", "infra/c.json", "infra/Dockerfile.cpu", "infra/e/.f.yaml"}
    assert unclaimed(tmp_path, ["infra/a.*"]) == found
    assert unclaimed(tmp_path, ["infra/*", "infra/e/.*"]) == set()

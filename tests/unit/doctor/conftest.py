"""A real output to examine, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gamecraft_core.base.store import LocalStore
from tests.fakes.outputs import fill


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished output. Its rows name no folder: they survive being copied."""
    folder = tmp_path_factory.mktemp("model") / "out"
    fill(LocalStore(str(folder)))
    return folder


@pytest.fixture
def out(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "out"))


@pytest.fixture
def store(out: Path) -> LocalStore:
    return LocalStore(str(out))

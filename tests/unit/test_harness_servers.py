"""The test servers' own manners: ready when they say so, gone with their owner, honest when they fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gamecraft_core.base import version
from tests.servers.child import ServerChild

POLITE = "import sys; print('ready http://x', flush=True); sys.stdin.read(); open(sys.argv[1], 'w').write('bye')"


def test_a_child_is_ready_and_ends_with_the_block(tmp_path: Path) -> None:
    farewell = tmp_path / "farewell"
    with ServerChild([sys.executable, "-c", POLITE, str(farewell)], tmp_path / "log") as child:
        assert child.url == "http://x"
        assert not farewell.exists()
    assert farewell.read_text() == "bye"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise SystemExit('no such disk')", "ended:\nno such disk"),
        ("import sys; sys.stdin.read()", "was not ready in 1 s"),
        ("import sys; print('hello', flush=True); sys.stdin.read()", "where 'ready URL' was due"),
    ],
)
def test_a_child_that_does_not_come_up_says_why(tmp_path: Path, source: str, message: str) -> None:
    with (
        pytest.raises(RuntimeError, match=message),
        ServerChild([sys.executable, "-c", source], tmp_path / "log", ready_timeout_s=1),
    ):
        pass


def test_code_version_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "_ROOT", tmp_path)
    version.code_version.cache_clear()
    try:
        assert version.code_version() == version.VERSION
    finally:
        version.code_version.cache_clear()


def test_code_version_names_the_commit_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    monkeypatch.setattr(version, "_ROOT", tmp_path)
    commit = git("rev-parse", "HEAD")[:12]
    try:
        for content, text in (("one", f"{version.VERSION}+g{commit}"), ("two", f"{version.VERSION}+g{commit}.dirty")):
            (tmp_path / "file").write_text(content)
            version.code_version.cache_clear()
            assert version.code_version() == text
    finally:
        version.code_version.cache_clear()

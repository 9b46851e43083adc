"""infra/service.md: its commands executed as they stand, its tables against the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gamecraft_core.media.fragment import probe
from orchestrator.http import answers
from orchestrator.http.gate import Rules, digest
from orchestrator.limits import Limits
from orchestrator.live import registry
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import SETTLED
from tests.fakes.studio import preset
from tests.fakes.web import Web, quick_studio, served
from tests.ray.runs import ROOT

GUIDE = (ROOT / "infra" / "service.md").read_text()
ADDRESS = "http://127.0.0.1:8000"

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed (see tests/system_packages.sh)")


def blocks(kind: str, *, tokens: bool = False) -> list[str]:
    """What is meant to be run, in order; with ``tokens`` that of the section about them."""
    sections = GUIDE.split("\n## ")
    chosen = [section for section in sections if section.startswith("Tokens") == tokens]
    return [block for section in chosen for block in re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)]


def run(folder: Path, command: list[str], **environment: str) -> str:
    (folder / "jobs").symlink_to(ROOT / "jobs")
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    presets = [preset(name) for name in ("tiny-gamecraft", "tiny-framepack")]
    with served(lambda: quick_studio(served=presets)) as running:
        yield running


@needs_curl
def test_the_commands_do_what_they_say(web: Web, tmp_path: Path) -> None:
    script = "\n".join(blocks("sh")).replace(ADDRESS, web.url).replace(".venv/bin/python", sys.executable)
    said = run(tmp_path, ["bash", "-euo", "pipefail", "-c", script])
    heard = re.findall(r"^event: (\w+)$", (tmp_path / "events.txt").read_text(), re.MULTILINE)
    assert heard[0] == "state"
    assert set(heard) <= table("event")
    assert heard[-1] in ("committed", "state")
    assert '"speeds":{"move"' in said
    assert (tmp_path / "stream.mp4").read_bytes() == (tmp_path / "walk.mp4").read_bytes()
    made = {"walk": 99, "play": 99, "video": 66, "boats": 73}
    assert {name: probe((tmp_path / f"{name}.mp4").read_bytes()).frames for name in made} == made


def test_the_python_does_too(web: Web, tmp_path: Path) -> None:
    (block,) = blocks("python")
    run(tmp_path, [sys.executable, "-c", block.replace(ADDRESS, web.url)])
    assert probe((tmp_path / "client.mp4").read_bytes()).frames == 66


@needs_curl
def test_a_token_is_sent_as_shown(tmp_path: Path) -> None:
    (block,) = blocks("sh", tokens=True)
    with served(quick_studio, Rules({digest("secret"): "studio"})) as web:
        said = run(tmp_path, ["bash", "-euc", block], URL=web.url, TOKEN="secret")
    assert said.startswith('{"sessions":[]')


def table(head: str) -> set[str]:
    """The names in the first column of the table that begins with ``head``."""
    rows = GUIDE.split(f"\n| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"[\w]+", row.split("|")[1])}


def test_every_event_is_described() -> None:
    told = set(re.findall(r'tell\(\s*"(\w+)"', Path(registry.__file__).read_text()))
    assert table("event") == {"state", *told, *SETTLED}


def test_every_status_is_described() -> None:
    assert table("status") == {str(status) for status in answers._TEXTS}


def test_what_bounds_a_service_is_called_so() -> None:
    named = set(re.findall(r"`(limits|service)\.(\w+)", GUIDE))
    assert {name for owner, name in named if owner == "limits"} <= set(Limits.model_fields)
    assert {name for owner, name in named if owner == "service"} <= set(ServiceLimits.model_fields)
    assert len(named) > 7


def test_it_is_short_and_the_readme_points_to_it() -> None:
    assert len(GUIDE.splitlines()) <= 160
    assert "infra/service.md" in (ROOT / "README.md").read_text()

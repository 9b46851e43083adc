"""The README's commands, executed as they stand, and what ``make demo`` promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from gamecraft_core.media.fragment import probe
from tests.ray.runs import ROOT, Finished

pytestmark = pytest.mark.ray

#: Blocks marked ``sh`` are meant to be run; what is only shown has no mark.
COMMANDS = [block.strip() for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)]


def run(command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "RAY_"))}
    return subprocess.run(
        ["bash", "-euc", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def demo() -> Finished:
    """``make demo``, which is the README's first command."""
    assert COMMANDS[0] == "make demo"
    done = run(COMMANDS[0])
    assert done.returncode == 0, done.stderr
    return Finished(done.returncode, ROOT / "out" / "demo")


def test_the_demo_makes_every_session(demo: Finished) -> None:
    rows = demo.rows()
    wanted = [json.loads(line) for line in (ROOT / "jobs/demo/micro/manifest.jsonl").read_text().splitlines()]
    assert set(rows) == {row["session_id"] for row in wanted}
    assert len(rows) == 12
    assert all(len(row["chunks"]) == 3 for row in rows.values())
    assert {chunk["sp_degree"] for row in rows.values() for chunk in row["chunks"]} == {1, 2}
    for row in rows.values():
        facts = probe((demo.out / row["video_path"]).read_bytes())
        assert facts.fps == 25
        assert facts.monotonic
        assert facts.frames == row["num_frames"] == len(row["camera_to_world"]) == len(row["keys"])


def test_the_demo_hides_decode_behind_denoise(demo: Finished) -> None:
    counts = json.loads((demo.out / "run.json").read_text())["counts"]["this_start"]
    assert counts["overlap_ratio"] >= 0.7


def test_the_demo_leaves_its_pictures(demo: Finished) -> None:
    from PIL import Image

    with Image.open(demo.out / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 300
    assert len(demo.slices("denoise")) == 36
    assert not list((demo.out / "_staging").rglob("*.m4s")), "nothing staged is left"


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_the_other_commands_work(command: str) -> None:
    for target in re.findall(r"--out (\S+)", command):
        assert Path(target).parts[0] == "out"
        run(f"rm -rf {target}")
    done = run(command)
    assert done.returncode == 0, done.stderr

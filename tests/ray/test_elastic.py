"""A fleet on a cluster whose real nodes come and go; ``tests.servers.elastic_fleet`` tells what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from tests.fakes.roles import first_link, link
from tests.ray.runs import ROOT
from tests.servers.autoscaling import autoscaling_cluster
from tests.servers.cluster import ENV

pytestmark = pytest.mark.ray

FIRST, SECOND = "denoise-0@tiny-gamecraft", "denoise-1@tiny-gamecraft"


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """One fleet's life: started on a node of its own, that node drained; then grown under load, and shrunk."""
    with autoscaling_cluster(ROOT, head_cpus=1, node_cpus=2, nodes=3, idle_seconds=2.0) as address:
        command = [sys.executable, "-m", "tests.servers.elastic_fleet", address]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **ENV}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return told


def assert_right(chunks: list[Any]) -> None:
    """Every chunk was denoised once, and from the latents of the one before."""
    assert max(Counter((name, index) for name, index, _, _ in chunks).values()) == 1
    digests = {(name, index): digest for name, index, _, digest in chunks}
    for name, index in digests:
        latents = first_link(name)
        for each in range(index + 1):
            latents = link(latents, each)
        assert digests[name, index] == latents.hex()


def test_a_node_that_is_about_to_go_empties_first(told: dict[str, Any]) -> None:
    """It has the only group of the fleet: for some seconds there is none, and the run waits for the next."""
    story = told["drained"]
    assert story["finished"]
    assert story["ended"] == {f"s{n}": "NoneType" for n in range(3)}
    assert len(story["chunks"]) == 3 * 6
    assert_right(story["chunks"])
    assert story["moved"] == [["left", FIRST], ["joined", SECOND]], "nothing was lost, so nothing was charged"
    assert story["alive_when_left"][FIRST], "it ended after its last order"
    assert {lane for _, _, lane, _ in story["chunks"]} == {FIRST, SECOND}
    assert story["left_alive"] == []
    assert story["moved_to"] != [[story["node"]]]


def test_demand_brings_a_node_and_a_lane_and_their_absence_sends_them_away(told: dict[str, Any]) -> None:
    story = told["grown"]
    assert story["finished"]
    assert [how for how, _ in story["moved"]] == ["joined", "left"]
    assert story["ended"].pop("tail") == "Cancelled"
    assert set(story["ended"].values()) == {"NoneType"}
    assert_right(story["chunks"])
    assert len({lane for _, _, lane, _ in story["chunks"]}) == 2
    assert len(set(story["nodes"].values())) == 2, "each group needs a node of its own"
    assert story["left_alive"] == []

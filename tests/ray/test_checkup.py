"""The doctor's look at a real cluster: every check on its node, and a fleet that it has no room for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray

from jobs import doctor
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray


def environment(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status, and findings by name."""
    ports = ("--metrics-port", "0", "--port", "0")
    status = doctor.main(["environment", "--preset", "tiny-gamecraft", "--json", *ports, *options])
    found = json.loads(capsys.readouterr().out)["findings"]
    names = [each["name"] for each in found]
    assert len(set(names)) == len(names), "one node: each check once"
    return status, {each["name"]: each for each in found}


def test_a_healthy_cluster_is_examined_on_its_node(
    ray_cluster: RayCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = environment(capsys, "--address", ray_cluster.address, "--out", str(tmp_path / "out"))
    assert status == 0, found
    (node,) = {row["NodeManagerAddress"] for row in ray.nodes()}  # type: ignore[no-untyped-call]
    for name in ("python", "packages", "open files", "shared memory", "store", "weights", "node clock"):
        assert (found[name]["node"], found[name]["status"] in ("ok", "warn")) == (node, True), found[name]
    assert found["Ray's ports"]["status"] == "ok"
    assert {"Python", "ray", "torch"} <= set(found["nodes alike"]["seen"].split(", "))
    assert found["room"]["seen"].endswith("on 1 nodes")


def test_a_fleet_without_room_and_a_cluster_that_is_not_there_fail(
    ray_cluster: RayCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = environment(capsys, "--address", ray_cluster.address, "--fleet", "8xa100-throughput")
    assert (status, found["room"]["status"]) == (3, "fail")
    assert "of 0 GPU" in found["room"]["seen"]

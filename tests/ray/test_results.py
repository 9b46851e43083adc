"""What comes out does not depend on where it was made: company, number of lanes, sequence-parallel degree."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.ray.runs import INPUTS, Finished, row, synthesize
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray

SUBJECT = row("subject", "w left_rot:2 d", seed=5)
#: Also degrees apart in a record: with guidance, so that both branches are compared.
GUIDED = row("guided", "w:0.5 a", seed=6, guidance=2.0, negative_prompt="fog")


@pytest.fixture(scope="module")
def alone(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The subject and the guided session on one lane of each kind."""
    return synthesize(tmp_path_factory.mktemp("alone"), [SUBJECT, GUIDED], "laptop", "--keep-latents")


@pytest.fixture(scope="module")
def crowd(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The subject among five others, on three lanes."""
    others = [row(f"other-{number}", "a*2", seed=number) for number in range(4)]
    others.append(row("clip", "s w", image=None, video=str(INPUTS / "balloons.mp4")))
    rows = [*others[:3], SUBJECT, *others[3:]]
    return synthesize(tmp_path_factory.mktemp("crowd"), rows, "three", "--keep-latents")


def of_degree(folder: Path, degree: int) -> Finished:
    fleet = folder / "fleet.yaml"
    fleet.write_text(f"name: degree-{degree}\ndenoise:\n  - {{groups: 1, sp_degree: {degree}}}\n")
    return synthesize(folder, [SUBJECT, GUIDED], str(fleet), "--keep-latents")


def test_company_and_lanes_change_no_bit(alone: Finished, crowd: Finished) -> None:
    assert (alone.status, crowd.status) == (0, 0)
    ours, theirs = alone.rows()["subject"], crowd.rows()["subject"]
    assert [c["latents_sha256"] for c in ours["chunks"]] == [c["latents_sha256"] for c in theirs["chunks"]]
    assert ours["video_sha256"] == theirs["video_sha256"]
    assert len(crowd.rows()) == 6
    digests = [chunk["latents_sha256"] for each in crowd.rows().values() for chunk in each["chunks"]]
    assert len(set(digests)) == len(digests), "different seeds and chunks differ"


@pytest.mark.parametrize("degree", [2, 4])
def test_sequence_parallel_degrees_agree(alone: Finished, ray_cluster: RayCluster, tmp_path: Path, degree: int) -> None:
    split = of_degree(tmp_path, degree)
    assert split.status == 0
    for name in ("subject", "guided"):
        assert {chunk["sp_degree"] for chunk in split.rows()[name]["chunks"]} == {degree}
        for ours, theirs in zip(alone.latents(name), split.latents(name), strict=True):
            assert np.abs(ours - theirs).max() < 1e-4


def test_kept_latents_are_what_their_digest_says(alone: Finished) -> None:
    for chunk, latents in zip(alone.rows()["subject"]["chunks"], alone.latents("subject"), strict=True):
        assert hashlib.sha256(latents.tobytes()).hexdigest() == chunk["latents_sha256"]
        assert latents.size == 16 * 9 * 4 * 6

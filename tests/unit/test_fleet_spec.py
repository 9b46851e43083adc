"""Fleets: what they add up to, and the ones that Ray could never place."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from actors.cluster import check_room
from actors.fleet_spec import FleetSpec, GroupSpec
from gamecraft_core.base.errors import UsageError
from jobs.config import fleet_names, load_fleet


def test_totals_count_every_process() -> None:
    fleet = FleetSpec.model_validate(
        {
            "name": "f",
            "text": {"lanes": 2, "num_cpus": 0.5},
            "denoise": [{"groups": 2, "sp_degree": 4, "num_gpus": 1, "num_cpus": 1}, {"sp_degree": 3}],
            "decode": {"lanes": 3, "num_gpus": 0.4, "num_cpus": 0},
        }
    )
    once = (1.0 + 0.1 + 8 + 0.3 + 0 + 0.1, 8 + 1.2)
    assert fleet.reserved() == once
    assert fleet.reserved(2) == (2 * once[0] - 0.1, 2 * once[1]), "only the writers serve every preset"


@pytest.mark.parametrize("name", fleet_names())
def test_a_shipped_fleet_fits_the_machine_it_is_for(name: str) -> None:
    fleet = load_fleet(name)
    assert fleet.name == name
    assert fleet.description
    gpus, cpus = (8, 96) if name.startswith("8xa100") else (0, 2)
    assert fleet.reserved()[0] <= cpus
    assert fleet.reserved()[1] <= gpus


@pytest.mark.parametrize("name", [name for name in fleet_names() if name.startswith("8xa100")])
def test_gpu_fractions_pack_with_ranks_first(name: str) -> None:
    """Best fit, as Ray places fractions: the GPU with the least room that still suffices."""
    fleet = load_fleet(name)
    free = [1.0] * 8
    wanted = [group.num_gpus for group in fleet.denoise for _ in range(group.ranks)]
    for lane in (fleet.decode, fleet.text, fleet.encode, fleet.write):
        wanted += [lane.num_gpus] * lane.lanes
    for share in wanted:
        fitting = [index for index, room in enumerate(free) if room + 1e-9 >= share]
        assert fitting, f"{share} of a GPU has no place in {free}"
        best = min(fitting, key=lambda index: free[index])
        free[best] -= share
    assert all(group.num_gpus > 0.5 for group in fleet.denoise)


def test_the_demo_has_one_group_of_two_ranks_and_one_of_one() -> None:
    assert [(group.groups, group.sp_degree) for group in load_fleet("demo").denoise] == [(1, 2), (1, 1)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"denoise": []}, "at least 1 item"),
        ({"denoise": [{"sp_degree": 0}]}, "greater than or equal to 1"),
        ({"denoise": [{"sp_degree": 2, "num_gpus": 0.5}]}, "share a GPU"),
        ({"denoise": [{"num_gpus": 2}]}, "one GPU"),
        ({"denoise": [{"sp_degree": 3, "split_guidance": True}]}, "even number of ranks, not 3"),
        ({"denoise": [{"sp_degree": 8, "ring_degree": 3}]}, "ring_degree 3 does not divide the 8 ranks"),
        ({"denoise": [{"sp_degree": 4}, {"sp_degree": 4, "split_guidance": True}]}, "sp_degree 4 differ"),
        ({"text": {"lanes": 0}}, "greater than or equal to 1"),
        ({"text": {"lanes": 3, "max_lanes": 2}}, "max_lanes 2 is less than lanes 3"),
        ({"denoise": [{"groups": 2, "max_groups": 1}]}, "max_groups 1 is less than groups 2"),
        ({"elastic": {"idle_seconds": 0}}, "greater than 0"),
        ({"text": {"num_cpus": 1.5}}, "whole units above 1"),
        ({"decode": {"num_gpus": -1}}, "greater than or equal to 0"),
        ({"decode": {"num_cpus": float("nan")}}, "finite|greater than"),
        ({"write": {"threads": 0}}, "greater than or equal to 1"),
        ({"presets": ["a", "a"]}, "named twice"),
        ({"decod": {}}, "Extra inputs"),
    ],
)
def test_a_fleet_that_cannot_be_placed_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FleetSpec.model_validate({"name": "f"} | values)


def test_a_fleet_starts_with_its_least_and_says_whether_it_grows() -> None:
    grown = FleetSpec.model_validate({"name": "f", "decode": {"lanes": 2, "max_lanes": 9}})
    assert (grown.decode.least, grown.decode.most, grown.text.most) == (2, 9, 1)
    assert (grown.fixed, FleetSpec(name="f").fixed) == (False, True)
    assert grown.reserved() == FleetSpec.model_validate({"name": "f", "decode": {"lanes": 2}}).reserved()
    assert [name for name in fleet_names() if not load_fleet(name).fixed] == ["8xa100-elastic"]


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 8, 24])
def test_any_degree_is_legal(degree: int) -> None:
    assert GroupSpec(sp_degree=degree, groups=2).ranks == 2 * degree


def test_a_fleet_for_accelerators_that_are_not_there_is_refused_before_it_waits() -> None:
    spec = FleetSpec(name="mixed", denoise=(GroupSpec(accelerator="A100"), GroupSpec(accelerator="H100", sp_degree=2)))
    there = {"CPU": 64.0, "accelerator_type:A100": 1.0}
    with pytest.raises(UsageError, match="wants H100, the cluster has A100"):
        check_room(spec, 1, there)
    check_room(spec, 1, there | {"accelerator_type:H100": 1.0})

"""Blueprints: the same names in every start, kinds with their bounds, and a successor's name for every lane."""

from __future__ import annotations

from typing import Any

import pytest

from actors import adopt
from actors.blueprints import ROLES, LaneKind, kinds
from actors.fleet_spec import FleetSpec, GroupSpec, LaneSpec, WriteSpec
from jobs.config import load_preset
from tests.fakes.presets import tiny_preset

PRESETS = [tiny_preset("a"), tiny_preset("b")]


def planned(**spec: Any) -> dict[str, LaneKind]:
    return {kind.name: kind for kind in kinds(FleetSpec(name="f", **spec), PRESETS, "memory://t", {"x": 1}, ROLES)}


def test_kinds_and_names() -> None:
    groups = (GroupSpec(groups=2), GroupSpec(sp_degree=4, max_groups=3), GroupSpec(num_cpus=1))
    found = planned(denoise=groups, decode=LaneSpec(lanes=2, max_lanes=5), write=WriteSpec(max_lanes=2))
    assert list(found)[:4] == ["denoise@a", "denoise@a of 4 ranks", "denoise@b", "denoise@b of 4 ranks"], "ranks first"
    one, four = found["denoise@a"], found["denoise@a of 4 ranks"]
    assert [each.name for each in one.first] == ["denoise-0@a", "denoise-1@a", "denoise-3@a"]
    assert [each.name for each in four.first] == ["denoise-2@a"]
    assert [(kind.least, kind.most, kind.sp_degree) for kind in (one, four)] == [(3, 3, 1), (1, 3, 4)]
    assert (found["decode@b"].least, found["decode@b"].most, found["decode@b"].preset) == (2, 5, "b")
    assert (found["write"].least, found["write"].most, found["write"].depth) == (1, 2, 8)


def test_every_lane_has_a_name_of_its_own_and_one_for_its_successor() -> None:
    found = planned(denoise=(GroupSpec(max_groups=4), GroupSpec(sp_degree=2)), text=LaneSpec(max_lanes=3))
    names = [each.name for kind in found.values() for each in (*kind.first, *kind.others)]
    assert len(set(names)) == len(names)
    assert all(len(kind.first) + len(kind.others) == 2 * kind.most for kind in found.values())
    assert found["write"].first[0].rank_arguments(0) == ("write-0", "memory://t", {"x": 1})
    assert found["denoise@b of 2 ranks"].others[0].rank_arguments(1)[-2:] == (1, GroupSpec(sp_degree=2).layout)


def test_how_far_a_fleet_may_grow_is_no_part_of_what_a_detached_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(**spec: Any) -> str:
        return adopt.identity(FleetSpec.model_validate({"name": "f"} | spec), PRESETS, "memory://t", {})

    monkeypatch.setattr(adopt, "digest", lambda what: str(what))
    assert "elastic" not in name()
    assert "max_lanes" not in name()
    assert "max_groups" not in name()
    grown = {"elastic": {"idle_seconds": 5}, "decode": {"max_lanes": 4}, "denoise": [{"max_groups": 9}]}
    assert name(**grown) == name()
    assert name(decode={"lanes": 2}) != name()


def test_a_preset_that_begins_from_nothing_has_no_lane_for_starts() -> None:
    whole = load_preset("tiny-hunyuan-video")
    found = {kind.name for kind in kinds(FleetSpec(name="f"), [*PRESETS, whole], "memory://t", {}, ROLES)}
    assert {"encode@a", "encode@b", f"decode@{whole.name}"} <= found
    assert f"encode@{whole.name}" not in found

"""--set: which key a name means, how its value is read, and what a wrong one is answered."""

from __future__ import annotations

from typing import Any

import pytest

from actors.fleet_spec import FleetSpec
from gamecraft_core.base.errors import UsageError
from jobs.config import RunConfig
from jobs.overrides import apply_sets
from tests.fakes.presets import tiny_preset


def applied(*sets: str) -> RunConfig:
    base = RunConfig(preset=tiny_preset(), fleet=FleetSpec(name="laptop"))
    return RunConfig.model_validate(apply_sets(RunConfig, base.model_dump(exclude={"other_presets"}), sets))


def test_a_preset_key_needs_no_prefix() -> None:
    assert applied("sampling.steps=9").preset.sampling.steps == 9
    assert applied("preset.sampling.steps=9") == applied("sampling.steps=9")
    assert applied("text.template=other").preset.text.template == "other"
    assert applied("fleet.text.lanes=2").fleet.text.lanes == 2


def test_the_last_of_several_wins_and_nothing_else_changes() -> None:
    changed = applied("sampling.steps=9", "sampling.steps=3")
    assert changed.preset.sampling.steps == 3
    assert changed == applied("sampling.steps=3")
    assert changed.fleet == applied().fleet


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("sampling.guidance=2", 2.0),
        ("sampling.shift=1e1", 10.0),
        ("output.keep_latents=true", True),
        ("store.endpoint_url=http://127.0.0.1:7480", "http://127.0.0.1:7480"),
        ("store.endpoint_url=null", None),
        ("sampling.negative_prompt=blurry, low: quality", "blurry, low: quality"),
        ("sampling.negative_prompt=123", "123"),
        ("sampling.negative_prompt='quoted'", "quoted"),
        ("sampling.negative_prompt=a=b", "a=b"),
        ("sampling.negative_prompt=[a", "[a"),
        ("dit.rope_dim_list=[8, 4, 4]", (8, 4, 4)),
        ("fleet.name=wide", "wide"),
    ],
)
def test_values_are_yaml_and_text_stays_text(item: str, value: Any) -> None:
    target: Any = applied(item)
    key = item.partition("=")[0]
    for part in (key if hasattr(target, key.partition(".")[0]) else f"preset.{key}").split("."):
        target = getattr(target, part)
    assert target == value
    assert type(target) is type(value)


def test_a_group_that_may_be_left_out_is_set_by_its_keys() -> None:
    assert applied("fleet.name=wide").preset.vision is None
    encoder = applied("vision.path=/eyes").preset.vision
    assert encoder is not None
    assert (encoder.path, encoder.random) == ("/eyes", None)


def test_a_list_of_groups_is_one_value() -> None:
    fleet = applied("fleet.denoise=[{groups: 2, sp_degree: 4}, {}]").fleet
    assert [(group.groups, group.sp_degree) for group in fleet.denoise] == [(2, 4), (1, 1)]


@pytest.mark.parametrize(
    ("item", "message", "remedy"),
    [
        ("sampling.stepz=4", "unknown key sampling.stepz", "did you mean sampling.steps?"),
        ("samplng.steps=4", "unknown key samplng.steps", "did you mean sampling.steps?"),
        ("preset.sampling.stepz=4", "unknown key preset.sampling.stepz", "did you mean sampling.steps?"),
        ("store.endpoint=x", "unknown key store.endpoint", "did you mean store.endpoint_url?"),
        ("video.zzz=4", "unknown key video.zzz", "video.height"),
        ("limits.sessions=4", "unknown key limits.sessions", "limits.max_sessions"),
        ("zzz=4", "unknown key zzz", "sampling"),
        ("=4", "unknown key", "sampling"),
        ("sampling=4", "'sampling' is a group of keys", "sampling.steps"),
        ("fleet.text={}", "'fleet.text' is a group of keys", "fleet.text.lanes"),
        ("sampling.steps", "has no value", "KEY=VALUE"),
        ("sampling.steps=[", "not a YAML value", "quote it"),
        ("other_presets=[]", "unknown key other_presets", "use one of control, dit, fleet"),
    ],
)
def test_a_wrong_key_says_which_was_meant(item: str, message: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        applied(item)
    assert message in caught.value.message
    assert remedy in caught.value.remedy

"""The actions column: both notations mean the same, and every mistake is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.preset import ControlConfig
from gamecraft_core.base.spec import ACTIONS, ActionControl, Control, MotionControl, PoseControl
from orchestrator.manifest.actions import MAX_CHUNKS, MAX_PROBLEMS, read_controls
from orchestrator.manifest.fields import Fields, Problem

LIMITS = ControlConfig(rotation_speed_max=2.0, speed_min=0.1)
ROWS = ((0.0,) * 19,) * 33


def load_poses(path: str, field: str) -> tuple[tuple[float, ...], ...]:
    if path == "missing.txt":
        raise BadInput("missing.txt does not exist", field=field, remedy="check the path")
    return ROWS


def read(actions: Any) -> tuple[tuple[Control, ...], list[Problem]]:
    fields = Fields({"actions": actions})
    return read_controls(fields, LIMITS, load_poses), fields.problems


def test_the_presets_range_is_the_legal_one() -> None:
    """A preset may turn faster than the published model, and give turns a default speed of their own."""
    fast = ControlConfig(rotation_speed_max=45.0, default_speed=1.0, default_rotation_speed=30.0)
    fields = Fields({"actions": "left_rot:45 up_rot w d:3"})
    controls = read_controls(fields, fast, load_poses)
    assert not fields.problems
    assert [control.speed for control in controls if isinstance(control, ActionControl)] == [45.0, 30.0, 1.0, 3.0]
    fields = Fields({"actions": "left_rot:46 w:3.5 left_rot:3.5"})
    read_controls(fields, fast, load_poses)
    assert [(problem.field, problem.remedy) for problem in fields.problems] == [
        ("actions[0].speed", "give a number from 0 to 45"),
        ("actions[1].speed", "give a number from 0 to 3"),
    ]


def test_shorthand_with_speeds_repetitions_and_defaults() -> None:
    controls, problems = read("w:0.5*3  left_rot:1.5\td")
    assert not problems
    assert controls == (
        *(ActionControl("w", 0.5),) * 3,
        ActionControl("left_rot", 1.5),
        ActionControl("d", LIMITS.default_speed),
    )


def test_a_pose_file_may_be_repeated_and_its_path_may_hold_colons() -> None:
    controls, problems = read("poses:s3://bucket/arc.txt*2 w")
    assert not problems
    assert controls == (*(PoseControl("s3://bucket/arc.txt", ROWS),) * 2, ActionControl("w", 0.2))


@pytest.mark.parametrize(
    "actions",
    [
        [{"action": "w", "speed": 1}, {"poses": "arc.txt"}],
        '[{"action": "w", "speed": 1.0}, {"poses": "arc.txt"}]',
        [{"action": "w", "speed": 1.0, "poses": None}, {"action": None, "speed": None, "poses": "arc.txt"}],
        "w:1 poses:arc.txt",
    ],
)
def test_lists_json_text_and_columnar_structs_mean_the_same(actions: Any) -> None:
    assert read(actions) == ((ActionControl("w", 1.0), PoseControl("arc.txt", ROWS)), [])


@pytest.mark.parametrize(
    ("actions", "field", "reason", "remedy"),
    [
        (None, "actions", "no controls", "give"),
        ("", "actions", "no controls", "give"),
        ([], "actions", "no controls", "give"),
        ("  ", "actions", "no controls", "give"),
        (7, "actions", "not a list", "give"),
        (True, "actions", "not a list", "give"),
        ({"action": "w"}, "actions", "not a list", "give"),
        (b"w", "actions", "not a list", "give"),
        ("[{", "actions", "not readable JSON", "give"),
        ("[" * 100_000, "actions", "not readable JSON", "give"),
        ("w*0", "actions[0]", "no legal repetition", "repeat 1 to"),
        ("w*", "actions[0]", "no legal repetition", "repeat 1 to"),
        ("w*-1", "actions[0]", "no legal repetition", "repeat 1 to"),
        ("w*1.5", "actions[0]", "no legal repetition", "repeat 1 to"),
        ("w*99999999999999999999", "actions[0]", "no legal repetition", "repeat 1 to"),
        (f"w*{MAX_CHUNKS} d", "actions", "too many controls", "at most"),
        ("w:", "actions[0]", "no speed", "w:0.2"),
        ("d left_rto:1", "actions[1].action", "unknown action 'left_rto'", "'left_rot'"),
        ("jump", "actions[0].action", "unknown action 'jump'", "w, a, s, d"),
        ("w:fast", "actions[0].speed", "not a finite number", "0.1 to 3"),
        ("w:nan", "actions[0].speed", "not a finite number", "0.1 to 3"),
        ("w:3.1", "actions[0].speed", "out of range", "0.1 to 3"),
        ("w:0", "actions[0].speed", "out of range", "0.1 to 3"),
        ("w:-1", "actions[0].speed", "out of range", "0.1 to 3"),
        ("up_rot:2.5", "actions[0].speed", "out of range", "0.1 to 2"),
        ("poses:missing.txt", "actions[0].poses", "does not exist", "check"),
        ("poses:", "actions[0].poses", "not a path", "name a file"),
        (["w"], "actions[0]", "not a control", "give"),
        ([None], "actions[0]", "not a control", "give"),
        ([{}], "actions[0]", "keys with a mouse, or a pose file", "give"),
        ([{"action": "w", "poses": "arc.txt"}], "actions[0]", "keys with a mouse, or a pose file", "give"),
        ([{"acton": "w"}], "actions[0]", "unknown key 'acton'", "'action'"),
        ([{"action": 1}], "actions[0].action", "unknown action 1", "w, a, s, d"),
        ([{"action": "w", "speed": True}], "actions[0].speed", "not a finite number", "0.1 to 3"),
        ([{"action": "w", "speed": float("inf")}], "actions[0].speed", "not a finite number", "0.1 to 3"),
        ([{"action": "w", "speed": 10**400}], "actions[0].speed", "not a finite number", "0.1 to 3"),
        ([{"poses": "arc.txt", "speed": 1}], "actions[0].poses", "no speed", "scale"),
        ([{"poses": 3}], "actions[0].poses", "not a path", "name a file"),
    ],
)
def test_every_mistake_names_field_reason_and_remedy(actions: Any, field: str, reason: str, remedy: str) -> None:
    _, problems = read(actions)
    assert len(problems) == 1
    assert problems[0].field == field
    assert reason in problems[0].reason
    assert remedy in problems[0].remedy


def test_all_wrong_controls_are_named_up_to_a_bound() -> None:
    _, problems = read("w jump:1 d:9 s")
    assert [problem.field for problem in problems] == ["actions[1].action", "actions[2].speed"]
    _, problems = read("jump " * 500)
    assert len(problems) == MAX_PROBLEMS + 1


def test_a_full_length_session_is_possible() -> None:
    controls, problems = read(f"w*{MAX_CHUNKS}")
    assert not problems
    assert len(controls) == MAX_CHUNKS


@given(
    st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.floats(0.1, 2.0), st.integers(1, 5)),
        min_size=1,
        max_size=8,
    )
)
def test_shorthand_and_list_agree(words: list[tuple[str, float, int]]) -> None:
    shorthand = " ".join(f"{action}:{speed!r}*{count}" for action, speed, count in words)
    listed = [{"action": action, "speed": speed} for action, speed, count in words for _ in range(count)]
    assert read(shorthand) == read(listed)
    assert not read(listed)[1]


def test_several_keys_and_the_mouse() -> None:
    shorthand, problems = read("w:0.5+left_rot:1.5*2 a+d")
    assert not problems
    both = MotionControl((("w", 0.5), ("left_rot", 1.5)))
    assert shorthand[:2] == (both, both)
    listed, problems = read([{"keys": [{"action": "w", "speed": 0.5}], "mouse": [2, -0.5]}, {"mouse": [1, 0]}])
    assert not problems
    assert listed == (MotionControl((("w", 0.5),), (2.0, -0.5)), MotionControl((), (1.0, 0.0)))


@pytest.mark.parametrize(
    ("actions", "field"),
    [
        ("w+jump", "actions[0].keys[1].action"),
        ("w+w", "actions[0].keys"),
        ("w:+d", "actions[0]"),
        ("w+left_rot:9", "actions[0].keys[1].speed"),
        ([{"mouse": [1]}], "actions[0].mouse"),
        ([{"mouse": [float("nan"), 0]}], "actions[0].mouse"),
        ([{"mouse": [90, 0]}], "actions[0].mouse"),
        ([{"keys": "w"}], "actions[0].keys"),
        ([{"keys": [{"key": "w"}]}], "actions[0].keys[0]"),
        ([{"keys": [], "action": "w"}], "actions[0]"),
    ],
)
def test_wrong_keys_and_mouse_name_their_field(actions: Any, field: str) -> None:
    _, problems = read(actions)
    assert [problem.field for problem in problems] == [field]
    assert problems[0].remedy

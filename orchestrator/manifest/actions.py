"""The ``actions`` column: one control a chunk, as a list or in shorthand.

Shorthand: words separated by spaces, each ``ACTION[:SPEED][+ACTION[:SPEED]...][*COUNT]`` or ``poses:FILE[*COUNT]``,
as in ``w:0.2*3 w+left_rot:1.5 d``. List: ``{"action": "w", "speed": 0.2}``, ``{"poses": "arc.txt"}`` or ``{"keys":
[{"action": "w"}, {"action": "d"}], "mouse": [1.5, 0]}`` (degrees to the right and up), one for each chunk; the same
list as JSON text in formats whose cells are text. Without a speed the preset's default applies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.preset import ControlConfig
from gamecraft_core.base.spec import ACTIONS, ActionControl, Control, MotionControl, PoseControl
from orchestrator.manifest.fields import Fields, as_number, meant, shown

FIELD = "actions"
MAX_CHUNKS = 10_000
#: Characters of one shorthand or JSON cell.
MAX_TEXT = 1 << 20
#: Problems noted of one cell: ten thousand wrong controls would drown everything else.
MAX_PROBLEMS = 20

_KEYS = ("action", "speed", "poses", "keys", "mouse")
_FORMS = 'give "w:0.2*3 left_rot:1.5 poses:FILE" or a list of {"action", "speed"} and {"poses"}'
_FEWER = f"use at most {MAX_CHUNKS} chunks a session"

#: Reads a pose file: (path, field) to its rows, or BadInput.
LoadPoses = Callable[[str, str], tuple[tuple[float, ...], ...]]


def read_controls(fields: Fields, limits: ControlConfig, load_poses: LoadPoses) -> tuple[Control, ...]:
    """The controls of a row; what is wrong with them is noted in ``fields``."""
    controls: list[Control] = []
    wrong = 0
    try:
        for place, item, count in _items(fields.get(FIELD)):
            try:
                controls += [_control(item, place, limits, load_poses)] * count
            except BadInput as error:
                fields.caught(error, place)
                wrong += 1
            if len(controls) > MAX_CHUNKS:
                raise BadInput("too many controls", remedy=_FEWER)
            if wrong == MAX_PROBLEMS:
                raise BadInput(f"{wrong} controls are wrong, and the rest was not read", remedy=_FORMS)
        if not controls and not wrong:
            raise BadInput("there are no controls, so no chunks", remedy=_FORMS)
    except BadInput as error:
        fields.caught(error, FIELD)
    return tuple(controls)


def _items(value: Any) -> Iterator[tuple[str, Any, int]]:
    """Place, control as a mapping and repetition of every entry; BadInput where the cell as a whole is unreadable."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise BadInput(f"{len(value)} characters are too many", remedy=_FEWER)
        if not value.lstrip().startswith("["):
            for position, word in enumerate(value.split()):
                yield (f"{FIELD}[{position}]", *_word(word, f"{FIELD}[{position}]"))
            return
        value = _from_json(value)
    if not isinstance(value, Sequence | None) or isinstance(value, bytes):
        raise BadInput(f"{shown(value)} is not a list of controls", remedy=_FORMS)
    for position, item in enumerate(value or ()):
        yield f"{FIELD}[{position}]", item, 1


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{shown(text)} is not readable JSON ({error})", remedy=_FORMS) from error


def _word(word: str, place: str) -> tuple[dict[str, Any], int]:
    """One word of the shorthand as a mapping, and how often it counts."""
    body, star, times = word.rpartition("*")
    if not star:
        body, times = word, "1"
    if not (times.isascii() and times.isdigit() and len(times) <= 9 and 1 <= int(times) <= MAX_CHUNKS):
        remedy = f"repeat 1 to {MAX_CHUNKS} times"
        raise BadInput(f"{shown(word)} has no legal repetition after '*'", field=place, remedy=remedy)
    name, _, rest = body.partition(":")
    if name == "poses":
        return {"poses": rest}, int(times)
    held = [_held(part, word, place) for part in body.split("+")]
    return held[0] if len(held) == 1 else {"keys": held}, int(times)


def _held(part: str, word: str, place: str) -> dict[str, Any]:
    """``ACTION[:SPEED]`` as a mapping."""
    name, colon, speed = part.partition(":")
    if colon and not speed:
        raise BadInput(f"{shown(word)} has no speed after ':'", field=place, remedy="write w:0.2, or w for the default")
    return {"action": name} | ({"speed": speed} if colon else {})


def _control(item: Any, place: str, limits: ControlConfig, load_poses: LoadPoses) -> Control:
    if not isinstance(item, Mapping):
        raise BadInput(f"{shown(item)} is not a control", field=place, remedy='give {"action": "w", "speed": 0.2}')
    given = {key: value for key, value in item.items() if value is not None}
    for key in given:
        if key not in _KEYS:
            raise BadInput(f"unknown key {shown(key)}", field=place, remedy=meant(key, _KEYS))
    several = "keys" in given or "mouse" in given
    if ("action" in given) + ("poses" in given) + several != 1:
        raise BadInput("a control is an action, keys with a mouse, or a pose file", field=place, remedy=_FORMS)
    if "poses" in given:
        return _pose_control(given, f"{place}.poses", load_poses)
    if several:
        return _motion_control(given, place, limits)
    return ActionControl(*_action(given, place, limits))


def _motion_control(given: Mapping[str, Any], place: str, limits: ControlConfig) -> MotionControl:
    keys, mouse = given.get("keys", ()), given.get("mouse", (0.0, 0.0))
    if "speed" in given or not isinstance(keys, Sequence) or isinstance(keys, str | bytes) or len(keys) > len(ACTIONS):
        raise BadInput(
            f"{shown(keys)} are not keys", field=f"{place}.keys", remedy='give [{"action": "w", "speed": 0.2}]'
        )
    held = []
    for position, item in enumerate(keys):
        where = f"{place}.keys[{position}]"
        if not isinstance(item, Mapping) or not set(item) <= {"action", "speed"} or "action" not in item:
            raise BadInput(f"{shown(item)} is not a key", field=where, remedy='give {"action": "w", "speed": 0.2}')
        held.append(_action({key: value for key, value in item.items() if value is not None}, where, limits))
    if len({action for action, _ in held}) < len(held):
        raise BadInput("a key is held twice", field=f"{place}.keys", remedy="name each once")
    return MotionControl(tuple(held), _mouse(mouse, f"{place}.mouse", limits))


def _mouse(value: Any, place: str, limits: ControlConfig) -> tuple[float, float]:
    """Degrees a chunk, to the right and up; as much as the strongest rotation."""
    most = limits.rotation_speed_max
    remedy = f"give two numbers from {-most:g} to {most:g}: degrees to the right and up"
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != 2:
        raise BadInput(f"{shown(value)} is not a mouse movement", field=place, remedy=remedy)
    right, up = (as_number(each) for each in value)
    if right is None or up is None or max(abs(right), abs(up)) > most:
        raise BadInput(f"{shown(value)} is out of range", field=place, remedy=remedy)
    return right, up


def _action(given: Mapping[str, Any], place: str, limits: ControlConfig) -> tuple[str, float]:
    action = given.get("action")
    if action not in ACTIONS:
        raise BadInput(f"unknown action {shown(action)}", field=f"{place}.action", remedy=meant(action, ACTIONS))
    return action, _speed(given.get("speed", limits.default_for(action)), action, f"{place}.speed", limits)


def _pose_control(given: Mapping[str, Any], place: str, load_poses: LoadPoses) -> PoseControl:
    path = given["poses"]
    if "speed" in given:
        raise BadInput("a pose file has no speed", field=place, remedy="scale the translations in the file")
    if not isinstance(path, str) or not path:
        raise BadInput(f"{shown(path)} is not a path", field=place, remedy="name a file of rows of 19 numbers")
    return PoseControl(path, load_poses(path, place))


def _speed(value: Any, action: str, place: str, limits: ControlConfig) -> float:
    high = limits.most_for(action)
    speed = as_number(value)
    if speed is None:
        reason = f"{shown(value)} is not a finite number"
    elif not limits.speed_min <= speed <= high:
        reason = f"speed {shown(value)} is out of range for {action}"
    else:
        return speed
    raise BadInput(reason, field=place, remedy=f"give a number from {limits.speed_min:g} to {high:g}")

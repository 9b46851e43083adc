"""Controls become camera matrices: pose rows of a chunk, poses relative to its first frame, the session's path.

Conventions. A pose row is ``index, fx, fy, cx, cy, 0, 0`` and a 3x4 world-to-camera matrix row by row; focal lengths
and centres are fractions of the image. Axes: x right, y down, z forward. Every chunk starts at the identity; its
translations are multiplied by 10 on the way to the model, and every matrix handed out here carries that factor.
Matrices are inverted and composed in float64 and rounded to float32 once: a different order flips roundings later.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.spec import ActionControl, Control, MotionControl, NoControl, PoseControl

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

#: What the published actions use: fx and fy for a centre at one half.
ACTION_INTRINSICS = (0.50505, 0.8979, 0.5, 0.5)
TRANSLATION_SCALE = 10.0

#: Moves, as the direction in which the camera goes.
_MOVES = {"w": (0.0, 0.0, 1.0), "s": (0.0, 0.0, -1.0), "a": (-1.0, 0.0, 0.0), "d": (1.0, 0.0, 0.0)}
#: Turns, as (degrees to the right, degrees up) per degree of speed.
_TURNS = {"left_rot": (-1.0, 0.0), "right_rot": (1.0, 0.0), "up_rot": (0.0, 1.0), "down_rot": (0.0, -1.0)}


def action_rows(action: str, speed: float, frames: int) -> DoubleArray:
    """Pose rows [frames + 1, 19] of one action: row k is k/frames of the motion, so the last row is all of it."""
    return motion_rows(MotionControl(((action, speed),)), frames)


def motion_rows(control: MotionControl, frames: int) -> DoubleArray:
    """The same of several keys and the mouse together."""
    move, (right, up) = _motion(control)
    part = np.arange(frames + 1, dtype=np.float64)[:, None] / frames
    rotation = _turn(np.radians(part[:, 0] * right), np.radians(part[:, 0] * up))
    rows = np.zeros((frames + 1, 19))
    rows[:, 0] = np.maximum(np.arange(frames + 1) - 1, 0)
    rows[:, 1:5] = ACTION_INTRINSICS
    translation = -(rotation @ (part * move)[:, :, None])
    rows[:, 7:] = np.concatenate([rotation, translation], axis=2).reshape(-1, 12)
    return rows


def _motion(control: MotionControl) -> tuple[DoubleArray, DoubleArray]:
    """The whole chunk's move [3] in the camera's first axes, and its turn [2] in degrees to the right and up."""
    move, turn = np.zeros(3), np.array(control.mouse, dtype=np.float64)
    for action, speed in control.keys:
        if action in _MOVES:
            move = move + speed * np.array(_MOVES[action])
        elif action in _TURNS:
            turn = turn + speed * np.array(_TURNS[action])
        else:
            raise BadInput(f"unknown action {action!r}", field="actions", remedy=f"use {' '.join((*_MOVES, *_TURNS))}")
    return move, turn


def control_rows(control: Control, chunk_frames: int) -> DoubleArray:
    """A chunk's pose rows: always ``chunk_frames``, and one more where the control says where the motion ends."""
    if isinstance(control, ActionControl):
        return action_rows(control.action, control.speed, chunk_frames)
    if isinstance(control, MotionControl):
        return motion_rows(control, chunk_frames)
    if isinstance(control, NoControl):
        raise ValueError("a chunk without a camera has no pose rows")
    if len(control.rows) < chunk_frames:
        raise BadInput(
            f"{control.path} has {len(control.rows)} pose rows",
            field="actions",
            remedy=f"give at least {chunk_frames}",
        )
    return np.array(control.rows[: chunk_frames + 1], dtype=np.float64)


def relative_c2w(rows: DoubleArray, frames: int) -> FloatArray:
    """Camera-to-world matrices [frames, 4, 4] relative to the first row, translations times 10."""
    return _relative(rows[:frames]).astype(np.float32)


def intrinsics(rows: DoubleArray, height: int, width: int) -> FloatArray:
    """``fx, fy, cx, cy`` in pixels [rows, 4]; the centre is the image's, and focal lengths refer to twice theirs."""
    fx, fy, cx, cy = rows[:, 1:5].T
    centre = np.ones_like(fx)
    return np.stack(
        [fx * width / (2 * cx), fy * height / (2 * cy), centre * width / 2, centre * height / 2], axis=1
    ).astype(np.float32)


def session_camera(
    controls: Sequence[Control], chunk_frames: int, height: int, width: int
) -> tuple[FloatArray, FloatArray]:
    """Camera of every pixel frame: camera-to-world [N, 3, 4] relative to the session's first, intrinsics [N, 4].

    A chunk's first pose sits where the motion of the chunk before it ends, one step after that chunk's last frame.
    Chunks without a camera have no entries.
    """
    origin = np.eye(4)
    poses: list[DoubleArray] = []
    lenses: list[FloatArray] = []
    for control in controls:
        if isinstance(control, NoControl):
            continue
        rows = control_rows(control, chunk_frames)
        path = _relative(rows)
        if len(path) == chunk_frames:  # The path says nothing beyond its last frame: go on as in the last step.
            path = np.concatenate([path, (path[-1] @ np.linalg.inv(path[-2]) @ path[-1])[None]])
        poses.append(origin @ path[:chunk_frames])
        lenses.append(intrinsics(rows[:chunk_frames], height, width))
        origin = origin @ path[chunk_frames]
    if not poses:
        return np.zeros((0, 3, 4), np.float32), np.zeros((0, 4), np.float32)
    return np.concatenate(poses)[:, :3].astype(np.float32), np.concatenate(lenses)


def keys_and_mouse(controls: Sequence[Control], chunk_frames: int) -> tuple[list[list[str]], FloatArray]:
    """Per pixel frame: the keys held, and the mouse [N, 2] in degrees a frame (right +, up +); none for pose paths.

    Chunks without a camera have no entries.
    """
    keys: list[list[str]] = []
    cameras = [control for control in controls if not isinstance(control, NoControl)]
    mouse = np.zeros((len(cameras) * chunk_frames, 2), np.float32)
    for index, control in enumerate(cameras):
        if isinstance(control, PoseControl):
            keys.extend([] for _ in range(chunk_frames))
            continue
        motion = control if isinstance(control, MotionControl) else MotionControl(((control.action, control.speed),))
        held = [action for action, _ in motion.keys if action in _MOVES]
        keys.extend(list(held) for _ in range(chunk_frames))
        mouse[index * chunk_frames : (index + 1) * chunk_frames] = _motion(motion)[1] / chunk_frames
    return keys, mouse


def _relative(rows: DoubleArray) -> DoubleArray:
    world_to_camera = np.tile(np.eye(4), (len(rows), 1, 1))
    world_to_camera[:, :3] = rows[:, 7:].reshape(-1, 3, 4)
    relative: DoubleArray = world_to_camera[0] @ np.linalg.inv(world_to_camera)
    relative[0] = np.eye(4)
    relative[:, :3, 3] *= TRANSLATION_SCALE
    return relative


def _turn(right: DoubleArray, up: DoubleArray) -> DoubleArray:
    """World-to-camera rotations [n, 3, 3]: about y by ``right``, then about x by ``up`` (radians)."""
    turn_y = np.tile(np.eye(3), (len(right), 1, 1))
    turn_y[:, 0, 0] = turn_y[:, 2, 2] = np.cos(right)
    turn_y[:, 2, 0] = np.sin(right)
    turn_y[:, 0, 2] = -np.sin(right)
    turn_x = np.tile(np.eye(3), (len(up), 1, 1))
    turn_x[:, 1, 1] = turn_x[:, 2, 2] = np.cos(up)
    turn_x[:, 1, 2] = np.sin(up)
    turn_x[:, 2, 1] = -np.sin(up)
    return turn_x @ turn_y

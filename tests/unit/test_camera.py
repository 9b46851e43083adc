"""Cameras: directions of the actions, the session's path, keys and mouse."""

from __future__ import annotations

import numpy as np
import pytest

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.spec import ACTIONS, ActionControl, Control, MotionControl, PoseControl
from gamecraft_core.timeline.camera import (
    action_rows,
    control_rows,
    intrinsics,
    keys_and_mouse,
    motion_rows,
    relative_c2w,
    session_camera,
)

SIZE = (352, 608)


def path_of(*controls: tuple[str, float], frames: int = 33) -> np.ndarray:
    return session_camera([ActionControl(*control) for control in controls], frames, *SIZE)[0]


def poses(rows: np.ndarray, count: int) -> PoseControl:
    return PoseControl("path.txt", tuple(tuple(row) for row in rows[:count].tolist()))


@pytest.mark.parametrize(("action", "axis", "sign"), [("w", 2, 1), ("s", 2, -1), ("a", 0, -1), ("d", 0, 1)])
@pytest.mark.parametrize("frames", [33, 17])
def test_moves(action: str, axis: int, sign: int, frames: int) -> None:
    poses = relative_c2w(action_rows(action, 0.2, frames), frames)
    expected = np.zeros((frames, 3))
    expected[:, axis] = sign * 0.2 * 10 * np.arange(frames) / frames
    np.testing.assert_allclose(poses[:, :3, 3], expected, atol=1e-6)
    np.testing.assert_array_equal(poses[:, :3, :3], np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)))


@pytest.mark.parametrize(
    ("action", "axis", "sign"), [("left_rot", 0, -1), ("right_rot", 0, 1), ("up_rot", 1, -1), ("down_rot", 1, 1)]
)
def test_turns_move_the_look_direction(action: str, axis: int, sign: int) -> None:
    look = relative_c2w(action_rows(action, 3.0, 33), 33)[-1, :3, 2]
    np.testing.assert_allclose(look[axis], sign * np.sin(np.radians(3 * 32 / 33)), atol=1e-6)
    np.testing.assert_allclose(look[2], np.cos(np.radians(3 * 32 / 33)), atol=1e-6)


def test_row_numbers_and_lens() -> None:
    rows = action_rows("w", 1.0, 17)
    assert rows.shape == (18, 19)
    assert rows[:, 0].tolist() == [0, *range(17)]
    assert rows[-1, -1] == -1.0
    np.testing.assert_allclose(intrinsics(rows, *SIZE)[0], [0.50505 * 608, 0.8979 * 352, 304, 176], rtol=1e-7)


def test_a_lens_refers_to_twice_its_own_centre() -> None:
    rows = action_rows("w", 1.0, 1)
    rows[:, 1:5] = 0.6, 0.9, 0.4, 0.6
    np.testing.assert_allclose(intrinsics(rows, 100, 200)[0], [150, 75, 100, 50], rtol=1e-6)


def test_an_unknown_action_is_named() -> None:
    with pytest.raises(BadInput, match=r"'jump'.*left_rot"):
        action_rows("jump", 1.0, 33)


def test_chunks_follow_one_another_without_a_jump() -> None:
    path = path_of(("w", 0.33), ("w", 0.33), ("s", 0.33))
    depth = path[:, 2, 3]
    np.testing.assert_allclose(np.diff(depth[:67]), 0.1, atol=1e-5)
    np.testing.assert_allclose(np.diff(depth[66:]), -0.1, atol=1e-5)


def test_a_move_after_a_turn_goes_where_the_camera_looks() -> None:
    path = path_of(("right_rot", 90.0), ("w", 1.0))
    np.testing.assert_allclose(path[33, :, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(path[-1, :, 3], [10 * 32 / 33, 0, 0], atol=1e-5)


def test_a_pose_path_ends_where_its_extra_row_says() -> None:
    rows = action_rows("w", 0.5, 33)
    rows[33, -1] = -2.0
    path, _ = session_camera([poses(rows, 34), ActionControl("w", 0.0)], 33, *SIZE)
    np.testing.assert_allclose(path[33:, 2, 3], 20.0, atol=1e-5)


def test_a_pose_path_without_an_extra_row_goes_on_as_it_moved() -> None:
    rows = action_rows("left_rot", 3.0, 33)
    path, lens = session_camera([poses(rows, 33), ActionControl("w", 0.0)], 33, *SIZE)
    np.testing.assert_allclose(path, path_of(("left_rot", 3.0), ("w", 0.0)), atol=1e-6)
    assert path.dtype == lens.dtype == np.float32
    assert (path.shape, lens.shape) == ((66, 3, 4), (66, 4))


def test_a_pose_path_is_relative_to_its_own_first_row() -> None:
    rows = action_rows("d", 1.0, 33)
    rows[:, 10] += 7.0
    np.testing.assert_allclose(relative_c2w(rows, 33), relative_c2w(action_rows("d", 1.0, 33), 33), atol=1e-5)


def test_a_pose_path_that_is_too_short_is_refused() -> None:
    with pytest.raises(BadInput, match=r"path\.txt has 20 pose rows.*at least 33"):
        control_rows(poses(action_rows("w", 1.0, 33), 20), 33)


def test_keys_and_mouse() -> None:
    path = poses(action_rows("w", 1.0, 33), 33)
    controls: list[Control] = [
        ActionControl("a", 0.2),
        ActionControl("left_rot", 3.3),
        ActionControl("up_rot", 0.33),
        path,
    ]
    keys, mouse = keys_and_mouse(controls, 33)
    assert keys == [["a"]] * 33 + [[]] * 99
    assert mouse.dtype == np.float32
    assert mouse.shape == (132, 2)
    left, up, none = [-0.1, 0.0], [0.0, 0.01], [0.0, 0.0]
    expected = np.array([none] * 33 + [left] * 33 + [up] * 33 + [none] * 33)
    np.testing.assert_allclose(mouse, expected, atol=1e-7)


def test_no_controls_no_frames() -> None:
    path, lens = session_camera([], 33, *SIZE)
    assert (path.shape, lens.shape) == ((0, 3, 4), (0, 4))


def test_keys_held_together_move_and_turn_at_once() -> None:
    together = motion_rows(MotionControl((("w", 0.5), ("d", 0.25), ("left_rot", 2.0)), (0.5, 1.0)), 33)
    turned = motion_rows(MotionControl((("left_rot", 1.5), ("up_rot", 1.0))), 33)
    ours, theirs = relative_c2w(together, 33), relative_c2w(turned, 33)
    np.testing.assert_array_equal(ours[:, :3, :3], theirs[:, :3, :3])
    part = np.arange(33)[:, None] / 33
    np.testing.assert_allclose(ours[:, :3, 3], 10 * part * np.array([0.25, 0.0, 0.5]), atol=1e-6)


@pytest.mark.parametrize("action", ACTIONS)
def test_one_key_is_its_action(action: str) -> None:
    np.testing.assert_array_equal(motion_rows(MotionControl(((action, 1.5),)), 17), action_rows(action, 1.5, 17))


def test_frames_of_keys_and_mouse_together() -> None:
    controls: list[Control] = [
        MotionControl((("w", 0.5), ("a", 0.1), ("right_rot", 3.3)), (0.0, 0.33)),
        ActionControl("s", 1.0),
    ]
    keys, mouse = keys_and_mouse(controls, 33)
    assert keys == [["w", "a"]] * 33 + [["s"]] * 33
    np.testing.assert_allclose(mouse[:33], [[0.1, 0.01]] * 33, rtol=1e-6)
    assert not mouse[33:].any()

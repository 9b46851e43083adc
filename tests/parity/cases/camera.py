"""Actions and a free trajectory: pose rows, relative matrices, Plücker maps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gamecraft_core.families.plucker import plucker_maps, round_to_bf16
from gamecraft_core.timeline.camera import DoubleArray, action_rows, intrinsics, relative_c2w
from gamecraft_core.timeline.frames import CHUNK_FRAMES
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

ROWS = 1e-12
MATRICES = 1e-6
PLUCKER = 5e-6
#: Names of tensors that need no comparison.
INPUTS = r"traj_rows"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    if "pose_rows" in file or "rel_c2w" in file:
        yield Case("actions", partial(_actions, file))
    for name in file.names("plucker_"):
        yield Case(name, partial(_plucker, file, name))
    for name in file.names("intrinsics_") + file.names("uncond_"):
        yield Case(name, partial(_fixed, file, name))
    if "traj" in file.header:
        yield Case("traj", partial(_trajectory, file))


def maps(rows: DoubleArray, frames: int, height: int, width: int) -> Tensor:
    """Plücker maps [frames, 6, H, W] of the first ``frames`` pose rows."""
    lens = torch.from_numpy(intrinsics(rows[:frames], height, width))
    return plucker_maps(torch.from_numpy(relative_c2w(rows, frames)), lens, height, width)


def still_map(height: int, width: int) -> Tensor:
    """The one map [6, H, W] of an action camera that does not move."""
    return maps(action_rows("w", 0.0, 1), 1, height, width)[0]


def _chunk_frames(file: Golden) -> int:
    if "rel_c2w" in file:
        return file.shape("rel_c2w")[2]
    return file.shape("pose_rows")[2] - 1 if "pose_rows" in file else CHUNK_FRAMES[0]


def _actions(file: Golden, check: Check) -> None:
    frames = _chunk_frames(file)
    moves = [
        [action_rows(action, speed, frames) for speed in file.header["speeds"]] for action in file.header["actions"]
    ]
    rows = [torch.stack([torch.from_numpy(row) for row in line]) for line in moves]
    poses = [torch.stack([torch.from_numpy(relative_c2w(row, frames)) for row in line]) for line in moves]
    check.tensor(file, "pose_rows", torch.stack(rows), ROWS)
    check.tensor(file, "rel_c2w", torch.stack(poses), MATRICES)


def _entries(file: Golden, name: str) -> list[dict[str, Any]]:
    """A map tensor's header: a dict stands for every action, a list names action and frames of each entry."""
    described = file.header[name]
    if isinstance(described, list):
        return described
    actions = [described["action"]] if "action" in described else file.header["actions"]
    return [{**described, "action": action} for action in actions]


def _plucker(file: Golden, name: str, check: Check) -> None:
    shape, total = file.shape(name), _chunk_frames(file)
    made = []
    for entry in _entries(file, name):
        frames = entry["frames"] if "frames" in entry else [entry["frame"]]
        made.append(maps(action_rows(entry["action"], entry["speed"], total), total, *shape[-2:])[frames])
    actual = torch.stack(made)
    if actual.numel() == shape.numel():
        actual = actual.reshape(shape)  # an entry of one frame is stored without a frame axis
    check.tensor(file, name, actual, PLUCKER)
    check.close(f"{name} rounded to bf16", round_to_bf16(actual), round_to_bf16(file.expected(name)), 0.0)


def _fixed(file: Golden, name: str, check: Check) -> None:
    height, width = (int(side) for side in name.rsplit("_", 1)[1].split("x"))
    if name.startswith("uncond_"):
        check.tensor(file, name, still_map(height, width), PLUCKER)
    else:
        lens = torch.from_numpy(intrinsics(action_rows("w", 0.0, 1)[:1], height, width))
        check.tensor(file, name, lens[0], MATRICES)


def _trajectory(file: Golden, check: Check) -> None:
    plan = file.header["traj"]
    count = plan["n_frames"]
    rows = file.given("traj_rows").numpy()[plan["start_index"] :: plan["step"]][:count]
    check.tensor(file, "traj_rel_c2w", torch.from_numpy(relative_c2w(rows, count)), MATRICES)
    for name in file.names("traj_plucker_"):
        check.tensor(file, name, maps(rows, count, *file.shape(name)[-2:])[plan["frames"]], PLUCKER)
    for name in file.names("traj_uncond_"):
        check.tensor(file, name, maps(rows, 1, *file.shape(name)[-2:])[0], PLUCKER)

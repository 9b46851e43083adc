"""Actions and trajectories against the camera golden, and the camera encoder against its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gamecraft_core.families.camera_net import CameraNet, pool_time
from gamecraft_core.families.plucker import plucker_maps, round_to_bf16
from gamecraft_core.timeline.camera import DoubleArray, action_rows, intrinsics, relative_c2w
from tests.parity.goldens import assert_close, golden, header, names

ROWS_ATOL = 1e-12
MATRIX_ATOL = 1e-6
PLUCKER_ATOL = 5e-6
NET_ATOL = 1e-5


def maps(rows: DoubleArray, frames: int, size: tuple[int, int]) -> Tensor:
    lens = torch.from_numpy(intrinsics(rows[:frames], *size))
    return plucker_maps(torch.from_numpy(relative_c2w(rows, frames)), lens, *size)


def size_of(name: str) -> tuple[int, int]:
    height, width = name.rsplit("_", 1)[1].split("x")
    return int(height), int(width)


def camera_tensors(prefix: str) -> list[str]:
    return [name for name in header("camera") if name.startswith(prefix)] or [prefix]


def stored_entries(name: str) -> list[tuple[str, float, list[int], Tensor]]:
    """(action, speed, pixel frames, maps [frames, 6, H, W]) of a ``plucker_*`` tensor, by its header entry."""
    file = golden("camera")
    described: Any = file.header[name]
    if isinstance(described, dict):
        return [
            (action, described["speed"], described["frames"], file[name][index])
            for index, action in enumerate(file.header["actions"])
        ]
    entries = []
    for index, entry in enumerate(described):
        frames = entry["frames"] if "frames" in entry else [entry["frame"]]
        entries.append(
            (entry["action"], entry["speed"], frames, file[name][index].reshape(len(frames), 6, *size_of(name)))
        )
    return entries


def test_rows_and_matrices() -> None:
    file = golden("camera")
    stored_rows, stored_poses = file["pose_rows"].numpy(), file["rel_c2w"]
    frames = stored_poses.shape[2]
    for a, action in enumerate(file.header["actions"]):
        for s, speed in enumerate(file.header["speeds"]):
            rows = action_rows(action, speed, frames)
            np.testing.assert_allclose(rows, stored_rows[a, s], atol=ROWS_ATOL, rtol=0)
            assert_close(torch.from_numpy(relative_c2w(rows, frames)), stored_poses[a, s], MATRIX_ATOL, action)


@pytest.mark.parametrize("name", camera_tensors("plucker_"))
def test_plucker_maps(name: str) -> None:
    total = golden("camera")["rel_c2w"].shape[2]
    for action, speed, frames, stored in stored_entries(name):
        made = maps(action_rows(action, speed, total), total, size_of(name))[frames]
        assert_close(made, stored, PLUCKER_ATOL, f"{action} {speed}")
        assert torch.equal(round_to_bf16(made), round_to_bf16(stored)), f"{action} {speed}: a rounding flipped"


def test_intrinsics_and_unconditional_maps() -> None:
    file = golden("camera")
    rows = action_rows("w", 0.0, 1)
    for name in file.tensors:
        if name.startswith("intrinsics_"):
            assert_close(torch.from_numpy(intrinsics(rows[:1], *size_of(name)))[0], file[name], MATRIX_ATOL, name)
        if name.startswith("uncond_"):
            assert_close(maps(rows, 1, size_of(name))[0], file[name], PLUCKER_ATOL, name)


def test_trajectory() -> None:
    file = golden("camera")
    plan = file.header["traj"]
    count = plan["n_frames"]
    rows = file["traj_rows"].numpy()[plan["start_index"] :: plan["step"]][:count]
    assert_close(torch.from_numpy(relative_c2w(rows, count)), file["traj_rel_c2w"], MATRIX_ATOL)
    for name in file.tensors:
        if name.startswith("traj_plucker_"):
            assert_close(maps(rows, count, size_of(name))[plan["frames"]], file[name], PLUCKER_ATOL, name)
        if name.startswith("traj_uncond_"):
            assert_close(maps(rows, 1, size_of(name))[0], file[name], PLUCKER_ATOL, name)


@pytest.mark.parametrize("name", names("pipeline_inputs"))
def test_cameras_of_the_whole_run_round_alike(name: str) -> None:
    file = golden(name)
    size = tuple(file.header["size"])
    for index, (action, speed) in enumerate(file.header["actions"]):
        stored = file[f"cam_chunk{index}_frames"][0]
        made = maps(action_rows(action, speed, 33), 33, size)[file.header["cam_frames"]]
        assert torch.equal(made.bfloat16(), stored.bfloat16()), action
    assert torch.equal(maps(action_rows("w", 0, 33), 1, size)[0].bfloat16(), file["cam_uncond_frame"][0, 0].bfloat16())


def camera_net() -> CameraNet:
    file = golden("cameranet")
    config = file.header["config"]
    net = CameraNet(
        config["in_channels"],
        config["downscale_coef"],
        config["out_channels"],
        tuple(config["patch_size"]),
        config["hidden_size"],
    )
    net.load_state_dict(file.state_dict(), strict=True)
    return net.requires_grad_(False)


def test_camera_net_outputs() -> None:
    file, net = golden("cameranet"), camera_net()
    once = file["input33"][0]
    both = torch.cat([once, once.flip(0)])
    for name in file.tensors:
        if name.startswith("out_zero"):
            assert_close(net.zero_token().expand_as(file[name]), file[name], NET_ATOL, name)
            zeros = torch.zeros(int(name.removeprefix("out_zero")), *once.shape[1:])
            assert_close(net(zeros)[None], file[name], NET_ATOL, name)
        elif name.endswith("_batch2"):
            for half, stored in zip(both.chunk(2), file[name], strict=True):
                assert_close(net(half), stored, NET_ATOL, name)
        elif name.startswith("out"):
            assert_close(net(both[: int(name.removeprefix("out"))])[None], file[name], NET_ATOL, name)


def test_time_pooling() -> None:
    file = golden("cameranet")
    (source,) = (value for name, value in file.tensors.items() if name.startswith("compress_in"))
    for name, stored in file.tensors.items():
        if name.startswith("compress_out"):
            frames = int(name.removeprefix("compress_out"))
            halves = source[: 2 * frames].chunk(2)
            assert_close(torch.cat([pool_time(half) for half in halves]), stored, NET_ATOL, name)

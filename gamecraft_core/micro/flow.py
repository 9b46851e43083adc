"""The true optical flow of a rendered camera path, from depth and poses.

Flow [H, W, 2] is in pixels, x right and y down: where a point of the first picture lies in the second, less where it
was. Points that leave the view keep their flow; those that end up behind the camera have none (not finite).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.timeline.camera import FloatArray


def true_flow(depth: Tensor, lens: FloatArray, pose: FloatArray, later: FloatArray) -> Tensor:
    """Flow [H, W, 2] from the picture at ``pose`` with ``depth`` [H, W] to that at ``later`` (camera-to-world)."""
    height, width = depth.shape
    fx, fy, cx, cy = map(float, lens)
    columns = torch.arange(width, dtype=torch.float32) + 0.5
    rows = (torch.arange(height, dtype=torch.float32) + 0.5)[:, None]
    seen = torch.stack([(columns - cx).expand(height, -1) / fx, (rows - cy).expand(-1, width) / fy], dim=-1)
    points = torch.cat([seen, torch.ones(height, width, 1)], dim=-1) * depth[..., None]
    rotation = later[:, :3].T.astype(np.float64) @ pose[:, :3].astype(np.float64)
    shift = later[:, :3].T.astype(np.float64) @ (pose[:, 3] - later[:, 3]).astype(np.float64)
    moved = points @ torch.from_numpy(rotation).float().T + torch.from_numpy(shift).float()
    ahead = moved[..., 2:].where(moved[..., 2:] > 1e-3, torch.nan)
    ends = torch.stack([moved[..., 0] * fx, moved[..., 1] * fy], dim=-1) / ahead
    starts = torch.stack([seen[..., 0] * fx, seen[..., 1] * fy], dim=-1)
    return ends - starts

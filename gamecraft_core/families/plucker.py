"""Plücker maps: for every pixel the moment and direction of its viewing ray.

Invariant: float32 arithmetic in the order of the published code, because the maps are rounded to bf16 afterwards and
a flipped rounding is visible in the transformer's output.
"""

from __future__ import annotations

import torch
from torch import Tensor


def plucker_maps(camera_to_world: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Maps [frames, 6, height, width] (moment, then unit direction), float32, not yet rounded.

    ``camera_to_world`` [frames, 4, 4] and ``intrinsics`` [frames, 4] (fx, fy, cx, cy in pixels) are float32.
    """
    device = camera_to_world.device
    fx, fy, cx, cy = intrinsics[:, :, None, None].unbind(1)
    rows = torch.arange(height, device=device, dtype=torch.float32)[:, None] + 0.5
    columns = torch.arange(width, device=device, dtype=torch.float32)[None, :] + 0.5
    x = ((columns - cx) / fx).expand(-1, height, width)
    y = ((rows - cy) / fy).expand(-1, height, width)
    directions = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    rotated = directions.flatten(1, 2) @ camera_to_world[:, :3, :3].transpose(1, 2)
    origins = camera_to_world[:, None, :3, 3].expand_as(rotated)
    moments = torch.linalg.cross(origins, rotated)
    return torch.cat([moments, rotated], dim=-1).transpose(1, 2).reshape(-1, 6, height, width)


def round_to_bf16(maps: Tensor) -> Tensor:
    """Round to the precision in which the model was trained to see its camera; the type stays float32."""
    return maps.to(torch.bfloat16).to(torch.float32)

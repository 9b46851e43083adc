"""Pictures of a micro world: one ray a pixel, against the enclosure and every box, in float32 torch on the CPU.

A ray goes through the pixel's centre with a forward component of 1, so the distance along it is the depth that the
optical flow needs. Frames are cast one at a time: a frame's planes stay in a core's cache from one operation to the
next, which is what the speed comes from. Deterministic on one thread count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gamecraft_core.micro.worlds import EYE, FACES, FAR, World

FloatArray = npt.NDArray[np.float32]

_HILL_STEPS = 18
_HILL_REACH = 120.0
#: Pattern waves shorter than this many pixels have faded away: nothing finer than a pixel is ever drawn.
_FINEST = 3.0
_TINY = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """``frames`` uint8 [n, H, W, 3] and ``depth`` float32 [n, H, W] along the camera's axis, at most ``FAR``."""

    frames: Tensor
    depth: Tensor


class Caster:
    """Casts frames of one world at one size."""

    def __init__(self, world: World, height: int, width: int) -> None:
        def tensor(values: npt.ArrayLike) -> Tensor:
            return torch.tensor(np.asarray(values), dtype=torch.float32)

        self._world, self._size = world, (height, width)
        self._enclosure = world.enclosure
        self._boxes = world.boxes
        self._materials = torch.cat([tensor(world.base), tensor(world.second), tensor(world.waves)], dim=1)
        self._fog_colour = tensor(world.light.horizon)
        self._zenith = tensor(world.light.zenith)
        self._sun = tensor(world.sun)
        self._sun_colour = tensor(world.light.sun) * world.light.glow
        self._columns = torch.arange(width, dtype=torch.float32)[None, :] + 0.5
        self._rows = torch.arange(height, dtype=torch.float32)[:, None] + 0.5

    @torch.inference_mode()
    def cast(self, poses: FloatArray, lenses: FloatArray) -> Pictures:
        """Frames seen from camera-to-world ``poses`` [n, 3 or 4, 4] through ``lenses`` [n, 4] (pixels)."""
        height, width = self._size
        frames = torch.empty(len(poses), height, width, 3, dtype=torch.uint8)
        depth = torch.empty(len(poses), height, width)
        for frame, deep, pose, lens in zip(frames, depth, poses, lenses, strict=True):
            deep.copy_(self._one(frame, torch.from_numpy(np.array(pose[:3], np.float32)), lens))
        return Pictures(frames, depth)

    def _one(self, frame: Tensor, pose: Tensor, lens: FloatArray) -> Tensor:
        """Fill one frame; returns its depth."""
        fx, fy, cx, cy = map(float, lens)
        x, y = (self._columns - cx) / fx, (self._rows - cy) / fy
        rotation, eye = pose[:, :3].tolist(), pose[:, 3].tolist()
        rays = [row[0] * x + row[1] * y + row[2] for row in rotation]
        inverse = [1.0 / torch.where(ray.abs() < _TINY, _TINY, ray) for ray in rays]
        depth, surface = self._around(rays, inverse, eye)
        for number, box in enumerate(self._boxes):
            _nearer(depth, surface, inverse, eye, box, FACES * (1 + number))
        sky = self._sky(rays)
        colours = self._surfaces(depth, surface, rays, eye, fx)
        clear = torch.exp(depth * -self._world.fog)
        clear = torch.where(depth < FAR, clear, 0.0)
        picture = sky.lerp_(colours, clear)
        frame.copy_(_softened(picture).mul_(255.0).clamp_(0, 255).permute(1, 2, 0))
        return depth

    def _around(self, rays: list[Tensor], inverse: list[Tensor], eye: list[float]) -> tuple[Tensor, Tensor]:
        """Depth and surface of the enclosure, seen from inside."""
        low, high = self._enclosure
        height, width = self._size
        depth = torch.full((height, width), FAR)
        surface = torch.zeros(height, width, dtype=torch.int32)
        for axis in range(3):
            if not self._world.walls and axis != 1:
                continue
            forward = rays[axis] > 0
            far = torch.where(forward, high[axis] - eye[axis], low[axis] - eye[axis]).mul_(inverse[axis])
            if axis == 1 and self._world.open_sky:
                far = torch.where(forward, far, FAR)
            near = far < depth
            surface = torch.where(near, forward.to(torch.int32).add_(2 * axis), surface)
            depth = torch.where(near, far, depth)
        if self._world.walls and self._world.open_sky:  # over the walls' edge there is sky
            over = rays[1] * depth + eye[1] < float(low[1])
            depth = torch.where(over, FAR, depth)
        if self._world.hills[0]:
            depth, surface = self._hills(rays, eye)
        return depth, surface

    def _hills(self, rays: list[Tensor], eye: list[float]) -> tuple[Tensor, Tensor]:
        """Where rays first sink below a rolling floor: steps that grow with distance, then a straight cut."""
        distances = torch.logspace(0.0, float(np.log10(_HILL_REACH)), _HILL_STEPS).tolist()
        depth = torch.full(self._size, FAR)
        before, last = self._over(rays, eye, 0.0), 0.0
        for distance in distances:
            over = self._over(rays, eye, distance)
            crossed = (over < 0) & (before >= 0) & (depth >= FAR)
            where = last + (distance - last) * before / (before - over + _TINY)
            depth = torch.where(crossed, where, depth)
            before, last = over, distance
        flat = (EYE - eye[1]) / rays[1].clamp(min=_TINY)
        beyond = (depth >= FAR) & (flat > _HILL_REACH) & (flat < FAR)
        return torch.where(beyond, flat, depth), torch.full(self._size, 3, dtype=torch.int32)

    def _over(self, rays: list[Tensor], eye: list[float], distance: float) -> Tensor:
        """How far above the hills the point at ``distance`` is; the hills lie on the floor and below it."""
        height, wave = self._world.hills
        x = (rays[0] * (distance * wave)).add_(eye[0] * wave).sin_()
        z = (rays[2] * (distance * wave)).add_(eye[2] * wave).sin_()
        return x.mul_(z).mul_(height).add_(EYE - eye[1]).sub_(rays[1] * distance)

    def _surfaces(self, depth: Tensor, surface: Tensor, rays: list[Tensor], eye: list[float], fx: float) -> Tensor:
        """Pattern colours [3, H, W] of what was hit."""
        points = [ray * depth + place for ray, place in zip(rays, eye, strict=True)]
        axis = (surface % FACES) // 2
        u = torch.where(axis == 0, points[2], points[0])
        v = torch.where(axis == 1, points[2], points[1])
        rows = self._materials[surface.flatten().long()].T.unflatten(1, self._size)
        base, second, waves = rows[:3], rows[3:6], rows[6:]
        finest = (2 * np.pi / _FINEST) * fx / depth
        pattern = torch.ones_like(depth)
        for along, wave in zip((u, v), waves, strict=True):
            visible = (1 - wave / finest).clamp_(0, 1)
            wavy = torch.cos(along * wave).mul_(3.0).clamp_(-1, 1)
            pattern.mul_(torch.where(wave > 0, wavy.mul_(visible), 1.0))
        return torch.lerp(base, second, pattern.mul_(0.5).add_(0.5))

    def _sky(self, rays: list[Tensor]) -> Tensor:
        """[3, H, W]: horizon to zenith, and the sun's glow. It is the fog's colour too."""
        length = (rays[0].square() + rays[1].square() + rays[2].square()).rsqrt_()
        up = (-rays[1] * length).clamp_(0, 1).mul_(1.6).clamp_(max=1)
        facing = sum(ray * part for ray, part in zip(rays, self._sun.tolist(), strict=True))
        glow = (facing * length).clamp_(min=0).pow_(2).pow_(8)
        sky = torch.lerp(self._fog_colour[:, None, None], self._zenith[:, None, None], up)
        return sky.addcmul_(self._sun_colour[:, None, None], glow[None])


def _nearer(
    depth: Tensor, surface: Tensor, inverse: list[Tensor], eye: list[float], box: npt.NDArray[np.float64], first: int
) -> None:
    """Put ``box`` in front of what was hit so far, in place; its faces are surfaces ``first`` on."""
    low, high = box
    enter, leave, axis = None, None, None
    for number in range(3):
        one = inverse[number] * (low[number] - eye[number])
        other = inverse[number] * (high[number] - eye[number])
        near, far = torch.minimum(one, other), torch.maximum(one, other)
        if enter is None or leave is None or axis is None:
            enter, leave, axis = near, far, torch.zeros_like(surface)
        else:
            axis = torch.where(near > enter, number, axis)
            enter, leave = torch.maximum(enter, near), torch.minimum(leave, far)
    assert enter is not None and leave is not None and axis is not None
    hit = (enter < leave) & (enter > 0) & (enter < depth)
    if not bool(hit.any()):
        return
    signs = torch.stack([(part < 0).to(torch.int32) for part in inverse])
    side = signs.gather(0, axis[None].long())[0].to(torch.int32)
    surface.copy_(torch.where(hit, axis * 2 + side + first, surface))
    depth.copy_(torch.where(hit, enter, depth))


def _softened(picture: Tensor) -> Tensor:
    """[3, H, W] with a pixel's edges shared with its neighbours: three taps each way."""
    wide = picture.clone()
    wide[:, :, 1:-1] = picture[:, :, :-2].add(picture[:, :, 2:]).mul_(0.25).add_(picture[:, :, 1:-1], alpha=0.5)
    tall = wide.clone()
    tall[:, 1:-1] = wide[:, :-2].add(wide[:, 2:]).mul_(0.25).add_(wide[:, 1:-1], alpha=0.5)
    return tall

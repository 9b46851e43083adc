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
DoubleArray = npt.NDArray[np.float64]

_HILL_STEPS = 14
_HILL_REACH = 120.0
#: Pattern waves shorter than this many pixels have faded away: nothing finer than a pixel is ever drawn.
_FINEST = 3.0
_TINY = 1e-6
#: Added to a ray's components, of which it changes only those that are zero.
_TINIEST = 1e-12


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
        materials = torch.cat([tensor(world.base), tensor(world.second), tensor(world.waves)], dim=1)
        self._materials = materials.T.contiguous()
        self._axes = (torch.arange(FACES, dtype=torch.int32) // 2).repeat(1 + len(world.boxes))
        self._fog_colour = tensor(world.light.horizon)
        self._zenith = tensor(world.light.zenith)
        self._sun = world.sun
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
            deep.copy_(self._one(frame, np.array(pose[:3], np.float64), lens))
        return Pictures(frames, depth)

    def _one(self, frame: Tensor, pose: DoubleArray, lens: FloatArray) -> Tensor:
        """Fill one frame; returns its depth."""
        fx, fy, cx, cy = map(float, lens)
        x, y = (self._columns - cx) / fx, (self._rows - cy) / fy
        rotation, eye = pose[:, :3].tolist(), pose[:, 3].tolist()
        rays = [row[0] * x + (row[1] * y + row[2]) for row in rotation]
        inverse = [(ray + _TINIEST).reciprocal_() for ray in rays]
        depth, surface = self._around(rays, inverse, eye)
        for number, box in enumerate(self._boxes):
            rows, columns = _window(box, pose, lens, self._size)
            if rows.start < rows.stop and columns.start < columns.stop:
                seen = [each[rows, columns] for each in (depth, surface, *inverse)]
                _nearer(seen[0], seen[1], seen[2:], eye, box, FACES * (1 + number))
        sky = self._sky(rays[1], (x, y), self._sun @ rotation)
        colours = self._surfaces(depth, surface, rays, eye, fx)
        clear = (depth * -self._world.fog).exp_().masked_fill_(depth >= FAR, 0.0)
        picture = sky.lerp_(colours, clear)
        frame.copy_(_softened(picture).mul_(255.0).clamp_(0, 255).permute(1, 2, 0))
        return depth

    def _around(self, rays: list[Tensor], inverse: list[Tensor], eye: list[float]) -> tuple[Tensor, Tensor]:
        """Depth and surface of the enclosure, seen from inside."""
        low, high = self._enclosure
        height, width = self._size
        depth = torch.full((height, width), FAR)
        surface = torch.zeros(height, width, dtype=torch.int32)
        for axis in range(3) if self._world.walls else (1,):
            up, down = (float(side[axis] - eye[axis]) for side in (low, high))
            far = inverse[axis] * down
            if not (axis == 1 and self._world.open_sky):
                far = torch.maximum(far, inverse[axis] * up)
            near = (far < depth).logical_and_(far > 0)
            surface.masked_fill_(near, 2 * axis + 1)
            if not (axis == 1 and self._world.open_sky):
                surface.masked_fill_(near.logical_and(rays[axis] < 0), 2 * axis)
            torch.where(near, far, depth, out=depth)
        if self._world.walls and self._world.open_sky:  # over the walls' edge there is sky
            depth.masked_fill_(rays[1] * depth < float(low[1] - eye[1]), FAR)
        if self._world.hills[0]:
            depth, surface = self._hills(rays, eye)
        return depth, surface

    def _hills(self, rays: list[Tensor], eye: list[float]) -> tuple[Tensor, Tensor]:
        """Where rays first sink below a rolling floor: steps that grow with distance, then a straight cut.

        Rays that rise do not: the eye is above the highest hill.
        """
        sinking = rays[1] > 0
        x, y, z = (ray[sinking] for ray in rays)
        flat = (EYE - eye[1]) / y.clamp(min=_TINY)  # what slips between the steps, and all beyond them
        height, wave = self._world.hills
        start_x, start_z = (torch.tensor(eye[axis] * wave) for axis in (0, 2))
        along_x, along_z, over_floor = x * wave, z * wave, torch.tensor(EYE - eye[1])
        depth, last, before = torch.full_like(x, FAR), 0.0, torch.full_like(x, EYE - eye[1])
        for distance in torch.logspace(0.4, float(np.log10(_HILL_REACH)), _HILL_STEPS).tolist():
            of_x = torch.add(start_x, along_x, alpha=distance).sin_()
            of_z = torch.add(start_z, along_z, alpha=distance).sin_()
            over = torch.add(over_floor, y, alpha=-distance).addcmul_(of_x, of_z, value=height)
            crossed = (over < 0).logical_and_(depth >= FAR)
            where = torch.addcdiv(torch.tensor(last), before, before - over, value=distance - last)
            torch.where(crossed, where, depth, out=depth)
            before, last = over, distance
        missed = (depth >= FAR).logical_and_(flat < FAR)
        whole = torch.full(self._size, FAR)
        whole[sinking] = torch.where(missed, flat, depth)
        return whole, torch.full(self._size, 3, dtype=torch.int32)

    def _surfaces(self, depth: Tensor, surface: Tensor, rays: list[Tensor], eye: list[float], fx: float) -> Tensor:
        """Pattern colours [3, H, W] of what was hit."""
        points = [torch.addcmul(torch.tensor(place), ray, depth) for ray, place in zip(rays, eye, strict=True)]
        axis = self._axes.index_select(0, surface.flatten()).view(self._size)
        u = torch.where(axis == 0, points[2], points[0])
        v = torch.where(axis == 1, points[2], points[1])
        rows = self._materials.index_select(1, surface.flatten()).view(-1, *self._size)
        base, second, waves = rows[:3], rows[3:6], rows[6:]
        one, faded = torch.tensor(1.0), -_FINEST / (2 * np.pi * fx)
        pattern = torch.ones_like(depth)
        for along, wave in zip((u, v), waves, strict=True):
            visible = torch.addcmul(one, wave, depth, value=faded).clamp_(0, 1)
            wavy = (along * wave).cos_().mul_(3.0).clamp_(-1, 1)
            pattern.mul_(wavy.mul_(visible).masked_fill_(wave == 0, 1.0))
        return torch.lerp(base, second, pattern.mul_(0.5).add_(0.5))

    def _sky(self, down: Tensor, seen: tuple[Tensor, Tensor], sun: DoubleArray) -> Tensor:
        """[3, H, W]: horizon to zenith, and the sun's glow. It is the fog's colour too.

        ``down``: the rays' second component; ``seen``: their places in the camera's plane; ``sun`` is seen from there.
        """
        x, y = seen
        length = (x.square() + (y.square() + 1)).rsqrt_()
        up = (down * length).mul_(-1.6).clamp_(0, 1)
        facing = float(sun[0]) * x + (float(sun[1]) * y + float(sun[2]))
        glow = facing.mul_(length).clamp_(min=0).square_().square_().square_().square_()
        sky = torch.lerp(self._fog_colour[:, None, None], self._zenith[:, None, None], up)
        return sky.addcmul_(self._sun_colour[:, None, None], glow[None])


def _nearer(
    depth: Tensor, surface: Tensor, inverse: list[Tensor], eye: list[float], box: DoubleArray, first: int
) -> None:
    """Put ``box`` in front of what was hit so far, in place; its faces are surfaces ``first`` on."""
    low, high = box
    near, far = [], []
    for ray, below, above, place in zip(inverse, low, high, eye, strict=True):
        one, other = ray * float(below - place), ray * float(above - place)
        near.append(torch.minimum(one, other))
        far.append(torch.maximum(one, other))
    enter = torch.maximum(torch.maximum(near[0], near[1]), near[2])
    leave = torch.minimum(torch.minimum(far[0], far[1]), torch.minimum(far[2], depth))
    hit = (enter < leave).logical_and_(enter > 0)
    if not bool(hit.any()):
        return
    for axis, (below, above, place) in enumerate(zip(low, high, eye, strict=True)):
        if place < below:  # an eye sees at most one of two opposite faces
            surface.masked_fill_(hit & (near[axis] == enter), first + 2 * axis)
        elif place > above:
            surface.masked_fill_(hit & (near[axis] == enter), first + 2 * axis + 1)
    torch.where(hit, enter, depth, out=depth)


def _window(box: DoubleArray, pose: DoubleArray, lens: FloatArray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns that the box may be seen in: those around its corners, or all where one is behind the eye."""
    corners = np.stack(np.meshgrid(*box.T, indexing="ij"), axis=-1).reshape(-1, 3) - pose[:, 3]
    x, y, z = (corners @ pose[:, :3]).T
    height, width = size
    if z.max() <= 0:
        return slice(0, 0), slice(0, 0)
    if z.min() < _TINY:
        return slice(0, height), slice(0, width)
    fx, fy, cx, cy = map(float, lens)
    across, down = x / z * fx + cx, y / z * fy + cy
    return (
        slice(max(0, int(down.min())), min(height, int(down.max()) + 1)),
        slice(max(0, int(across.min())), min(width, int(across.max()) + 1)),
    )


def _softened(picture: Tensor) -> Tensor:
    """[3, H, W] with a pixel's edges shared with its neighbours: three taps each way, in place."""
    for inside, along in ((picture[:, :, 1:-1], 2), (picture[:, 1:-1], 1)):
        pairs = picture.narrow(along, 0, picture.shape[along] - 1) + picture.narrow(along, 1, picture.shape[along] - 1)
        count = pairs.shape[along] - 1
        torch.add(pairs.narrow(along, 0, count), pairs.narrow(along, 1, count), out=inside).mul_(0.25)
    return picture

"""Sessions through micro worlds: controls, the path they make, and the pictures of it, all from one seed.

Poses come from the product's own camera, never from a convention of this module. A path stays over the floor, below
the lowest ceiling, and never looks straight up or down, so what it sees is always a world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.base.preset import ControlConfig
from gamecraft_core.base.spec import ACTIONS, ActionControl, Control, MotionControl
from gamecraft_core.micro.raycast import Caster, Pictures
from gamecraft_core.micro.words import Words, draw_words
from gamecraft_core.micro.worlds import EYE, make_world
from gamecraft_core.timeline.camera import FloatArray, session_camera

CHUNK_FRAMES = 33
#: World lengths a unit of the camera's translation: the strongest move is two eye heights a chunk.
STRIDE = 0.4

_LOWEST, _HIGHEST = EYE - 2.0, -3.5
_STEEPEST = np.sin(np.radians(50.0))
_MIXED, _STILL = 0.10, 0.03
_TRIES = 12


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """A session seen by the renderer: ``pictures`` of all chunks, its camera (see ``world_camera``), and the
    ``caster`` of its world, for other views of it."""

    words: Words
    sentence: int
    controls: tuple[Control, ...]
    pictures: Pictures
    poses: FloatArray
    lenses: FloatArray
    caster: Caster

    @property
    def prompt(self) -> str:
        return self.words.prompt(self.sentence)

    def chunk(self, index: int) -> Tensor:
        """Frames uint8 [33, H, W, 3] of one chunk."""
        return self.pictures.frames[index * CHUNK_FRAMES : (index + 1) * CHUNK_FRAMES]


def make_episode(
    seed: int,
    chunks: int,
    size: tuple[int, int],
    limits: ControlConfig,
    *,
    words: Words | None = None,
    controls: Sequence[Control] | None = None,
    kept: slice = slice(None),
) -> Episode:
    """The episode of ``seed``; ``size`` is height and width. Words and controls are drawn where none are given.

    Only the frames ``kept`` are rendered, and only they have poses in the result.
    """
    draw = np.random.Generator(np.random.Philox(key=[seed, 1]))
    drawn = draw_words(draw)
    sentence = int(draw.integers(4))
    steered = tuple(controls) if controls is not None else draw_controls(draw, chunks, limits)
    poses, lenses = world_camera(steered, size)
    caster = Caster(make_world(seed, words or drawn, poses[:, :, 3].astype(np.float64)), *size)
    poses, lenses = poses[kept], lenses[kept]
    return Episode(words or drawn, sentence, steered, caster.cast(poses, lenses), poses, lenses, caster)


def world_camera(controls: Sequence[Control], size: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Poses [n, 3, 4] (camera to world, relative to the first, in world lengths) and lenses [n, 4] of whole chunks."""
    poses, lenses = session_camera(controls, CHUNK_FRAMES, *size)
    poses[:, :3, 3] *= STRIDE
    return poses, lenses


def draw_controls(draw: np.random.Generator, chunks: int, limits: ControlConfig) -> tuple[Control, ...]:
    """One control a chunk that keep the path in bounds; every action as likely as the others."""
    chosen: list[Control] = []
    for _ in range(chunks):
        for _ in range(_TRIES):
            control = draw_control(draw, limits)
            if _in_bounds([*chosen, control]):
                break
        else:
            control = ActionControl("left_rot", limits.rotation_speed_max / 2)
        chosen.append(control)
    return tuple(chosen)


def draw_control(draw: np.random.Generator, limits: ControlConfig) -> Control:
    """Mostly one action, now and then a move with a turn, rarely standing still."""
    kind = draw.random()
    if kind < _STILL:
        return ActionControl("w", 0.0)
    if kind < _STILL + _MIXED:
        move, turn = ACTIONS[draw.integers(4)], ACTIONS[4 + draw.integers(4)]
        return MotionControl(((move, _speed(draw, move, limits)), (turn, _speed(draw, turn, limits))))
    action = ACTIONS[draw.integers(len(ACTIONS))]
    return ActionControl(action, _speed(draw, action, limits))


def _speed(draw: np.random.Generator, action: str, limits: ControlConfig) -> float:
    most = limits.most_for(action)
    return float(limits.speed_min + (most - limits.speed_min) * draw.uniform(0.03, 1.0))


def _in_bounds(controls: Sequence[Control]) -> bool:
    poses, _ = world_camera(controls, (8, 8))
    heights, steepness = poses[:, 1, 3], poses[:, 1, 2]
    return bool((heights <= _LOWEST).all() and (heights >= _HIGHEST).all() and (abs(steepness) <= _STEEPEST).all())


def to_unit(frames: Tensor) -> Tensor:
    """uint8 [..., F, H, W, 3] to the VAE's [..., 3, F, H, W] in -1..1."""
    return frames.movedim(-1, -4).to(torch.float32).div_(127.5).sub_(1.0)

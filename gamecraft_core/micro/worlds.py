"""Small first-person worlds: what stands where, and what the words of a prompt make of its look.

A world is a function of its seed, its words and the path through it: whatever stands in a world leaves room for the
path. Axes are the camera's: x right, y down, z forward; lengths are the worlds' own (``episodes.STRIDE``).
The eye is at the origin, the floor ``EYE`` below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gamecraft_core.micro.words import Words

DoubleArray = npt.NDArray[np.float64]
Colour = tuple[float, float, float]

#: Height of the eye over the floor, and what the path keeps clear of.
EYE = 6.0
CLEARANCE = 5.0
BOXES = 6
#: Distance at which an open world is cut off by its fog.
FAR = 400.0

#: Surfaces: the six faces of the enclosure, in the order -x +x -y +y -z +z, then those of every box likewise.
FACES = 6
_CEILING, _FLOOR = 2, 3

COLOURS: dict[str, Colour] = {
    "red": (0.80, 0.20, 0.16),
    "orange": (0.88, 0.50, 0.15),
    "yellow": (0.86, 0.78, 0.22),
    "green": (0.24, 0.62, 0.26),
    "blue": (0.20, 0.36, 0.78),
    "violet": (0.56, 0.28, 0.70),
    "white": (0.86, 0.86, 0.84),
    "grey": (0.46, 0.47, 0.49),
}


@dataclass(frozen=True, slots=True)
class Light:
    """What a time of day gives: sunlight, zenith and horizon, the sun's height over the horizon (sine) and its glow."""

    sun: Colour
    zenith: Colour
    horizon: Colour
    height: float
    glow: float


LIGHTS = {
    "dawn": Light((1.00, 0.86, 0.78), (0.42, 0.52, 0.78), (0.98, 0.76, 0.66), 0.25, 0.5),
    "noon": Light((1.08, 1.06, 1.00), (0.26, 0.50, 0.88), (0.72, 0.84, 0.95), 0.85, 0.3),
    "dusk": Light((0.92, 0.62, 0.44), (0.28, 0.22, 0.46), (0.94, 0.46, 0.26), 0.15, 0.7),
    "night": Light((0.36, 0.42, 0.62), (0.03, 0.04, 0.12), (0.12, 0.15, 0.28), 0.60, 0.2),
}
#: Fog in parts a unit of depth.
WEATHERS = {"clear": 0.003, "misty": 0.02, "snowy": 0.007}
_SNOW: Colour = (0.93, 0.95, 0.98)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """All that the renderer needs. Boxes come as corners; materials one row a surface.

    ``enclosure`` [2, 3] is the box around everything; where ``open_sky`` is set only its floor is solid, and where
    ``walls`` is set its sides are too. ``boxes`` [n, 2, 3]. ``base`` and ``second`` [surfaces, 3] are a pattern's two
    colours, shaded; ``waves`` [surfaces, 2] its angular frequencies along the surface. ``hills`` holds height and
    angular frequency of a floor that rolls, or zeros.
    """

    enclosure: DoubleArray
    walls: bool
    open_sky: bool
    boxes: DoubleArray
    base: DoubleArray
    second: DoubleArray
    waves: DoubleArray
    hills: tuple[float, float]
    light: Light
    sun: DoubleArray
    fog: float


def make_world(seed: int, words: Words, path: DoubleArray) -> World:
    """The world of ``seed`` and ``words`` around ``path`` [n, 3], the places the eye will be."""
    draw = np.random.Generator(np.random.Philox(key=seed))
    walls = words.place in ("corridor", "courtyard")
    enclosure = _enclosure(draw, words.place, path)
    boxes = _boxes(draw, words.place, enclosure, path)
    light = LIGHTS[words.light]
    azimuth = draw.uniform(0, 2 * np.pi)
    flat = np.sqrt(1 - light.height**2)
    sun = np.array([flat * np.sin(azimuth), -light.height, flat * np.cos(azimuth)])
    base, second = _paint(draw, words, len(boxes))
    shade = _shade(sun, light, len(boxes), indoors=words.place == "corridor")
    waves = _waves(draw, len(boxes))
    hills = (draw.uniform(1.0, 2.2), draw.uniform(0.05, 0.09)) if words.place == "hills" else (0.0, 0.0)
    return World(
        enclosure=enclosure,
        walls=walls,
        open_sky=words.place != "corridor",
        boxes=boxes,
        base=base * shade,
        second=second * shade,
        waves=waves,
        hills=hills,
        light=light,
        sun=sun,
        fog=WEATHERS[words.weather],
    )


def _enclosure(draw: np.random.Generator, place: str, path: DoubleArray) -> DoubleArray:
    """Walls around the path's bounds: close on two sides in a corridor, wider in a courtyard, nowhere else."""
    low, high = path.min(axis=0), path.max(axis=0)
    if place == "corridor":
        near, far = draw.uniform(7, 11, 4), draw.uniform(25, 90, 4)
        along = (high - low)[0] > (high - low)[2] or (np.ptp(path) < 1e-6 and draw.random() < 0.3)
        room = far if along else near
        deep = near if along else far
    else:
        room = deep = draw.uniform(25, 70, 4) if place == "courtyard" else np.full(4, FAR)
    top = draw.uniform(5, 9) if place == "corridor" else draw.uniform(6, 16)
    return np.array([[low[0] - room[0], -top, low[2] - deep[2]], [high[0] + room[1], EYE, high[2] + deep[3]]])


def _boxes(draw: np.random.Generator, place: str, enclosure: DoubleArray, path: DoubleArray) -> DoubleArray:
    """Up to ``BOXES`` boxes on the floor, each clear of the path and inside the enclosure."""
    wanted = draw.integers(1, 4) if place == "corridor" else draw.integers(3, BOXES + 1)
    found: list[DoubleArray] = []
    for _ in range(60):
        if len(found) == wanted:
            break
        size = draw.uniform((4, 5, 4), (16, 18, 16)) if place != "corridor" else draw.uniform((2, 4, 2), (4, 11, 6))
        middle = path[draw.integers(len(path))] + draw.uniform(-60, 60, 3)
        bottom = EYE + 4 if place == "hills" else EYE
        low = np.array([middle[0] - size[0] / 2, bottom - size[1] - bottom + EYE, middle[2] - size[2] / 2])
        high = np.array([middle[0] + size[0] / 2, bottom, middle[2] + size[2] / 2])
        apart = np.maximum(np.maximum(low - path, path - high), 0)[:, [0, 2]]
        inside = bool((low[[0, 2]] >= enclosure[0, [0, 2]]).all() and (high[[0, 2]] <= enclosure[1, [0, 2]]).all())
        if inside and np.hypot(*apart.T).min() >= CLEARANCE:
            found.append(np.array([low, high]))
    return np.array(found).reshape(-1, 2, 3)


def _paint(draw: np.random.Generator, words: Words, boxes: int) -> tuple[DoubleArray, DoubleArray]:
    """Two colours a surface, before light: the prompt's colour on walls and boxes, the ground's own on the floor."""
    main = np.array(COLOURS[words.colour])
    ground = {"corridor": 0.5 * main + 0.18, "courtyard": np.array((0.56, 0.53, 0.48))}
    floor = ground.get(words.place, np.array((0.36, 0.52, 0.24) if words.place == "hills" else (0.66, 0.58, 0.42)))
    base = np.empty((FACES * (1 + boxes), 3))
    second = np.empty_like(base)
    for solid in range(1 + boxes):
        tint = np.clip(main * draw.uniform(0.75, 1.2) + draw.uniform(-0.06, 0.06, 3), 0.02, 1)
        rows = slice(FACES * solid, FACES * (solid + 1))
        base[rows] = tint
        second[rows] = tint * draw.uniform(0.45, 0.75)
    base[_FLOOR], second[_FLOOR] = floor * draw.uniform(0.9, 1.1), floor * draw.uniform(0.6, 0.8)
    base[_CEILING], second[_CEILING] = 0.3 * main + 0.55, 0.3 * main + 0.4
    if words.weather == "snowy" and words.place != "corridor":
        base[_FLOOR], second[_FLOOR] = _SNOW, np.array(_SNOW) * 0.86
        base[FACES + _CEILING :: FACES] = second[FACES + _CEILING :: FACES] = _SNOW
    return base, second


def _shade(sun: DoubleArray, light: Light, boxes: int, *, indoors: bool) -> DoubleArray:
    """Light on every surface [surfaces, 3]: from above and outside on a box, the other way round in the enclosure."""
    normals = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)], dtype=np.float64)
    lit = np.concatenate([-normals, *([normals] * boxes)])
    ambient = 0.55 * np.array(light.sun) + 0.12
    direct = np.maximum(lit @ sun, 0)[:, None] * np.array(light.sun) * 0.6
    if indoors:  # lamps: a fixed brightness a face, tinted by the time of day
        face = np.array([0.72, 0.86, 1.0, 0.66, 0.80, 0.92])
        direct = 0.45 * np.tile(face, 1 + boxes)[:, None] * (0.5 + 0.5 * np.array(light.sun))
    result: DoubleArray = ambient + direct
    return result


def _waves(draw: np.random.Generator, boxes: int) -> DoubleArray:
    """A checker, or stripes along either side; the same on all faces of a solid but floor and ceiling."""
    waves = np.empty((FACES * (1 + boxes), 2))
    for solid in range(1 + boxes):
        length = draw.uniform(4.0, 9.0, 2)
        kind = draw.integers(3)
        waves[FACES * solid : FACES * (solid + 1)] = np.array([kind != 1, kind != 2]) * 2 * np.pi / length
    waves[[_CEILING, _FLOOR]] = 2 * np.pi / draw.uniform(6.0, 12.0, (2, 1))
    return waves

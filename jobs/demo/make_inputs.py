"""Draws the demo's inputs: three pictures, one clip and one camera path, from formulas and fixed seeds alone.

``python -m jobs.demo.make_inputs [FOLDER]`` writes them again; the same library versions give the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HEIGHT, WIDTH = 96, 160
CLIP_FRAMES, FPS = 40, 25
POSE_ROWS = 34
INPUTS = Path(__file__).resolve().parent / "inputs"

Picture = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.floating[Any]]


def main(folder: Path = INPUTS) -> None:
    """Write every input into ``folder``."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        Image.fromarray(draw()).save(folder / f"{name}.png", optimize=True)
    (folder / "balloons.mp4").write_bytes(balloons_clip())
    (folder / "arc.txt").write_text(arc_poses())


def corridor() -> Picture:
    """A tiled corridor that runs to a lit door: floor, ceiling and walls by perspective division."""
    x, y = _grid()
    depth = 1 / np.maximum(np.maximum(abs(x), abs(y)), 0.08)
    on_floor = abs(y) >= abs(x)
    across = np.where(on_floor, x, y) * depth
    tile = (np.floor(across * 3) + np.floor(depth * 3)) % 2
    floor = _mix((70, 52, 40), (176, 150, 116), tile)
    ceiling = _mix((96, 100, 112), (128, 132, 142), tile)
    wall = _mix((40, 84, 110), (62, 120, 148), (np.floor(depth * 3) % 2) * (abs(across) < 0.6))
    picture = np.where(on_floor[..., None], np.where(y[..., None] > 0, floor, ceiling), wall)
    picture *= np.clip(1.25 - depth / 9, 0.25, 1)[..., None]
    door = (abs(x) < 0.1) & (y > -0.14) & (y < 0.1)
    picture[door] = (255, 232, 170)
    return _pixels(picture + 40 * np.exp(-12 * (x**2 + y**2))[..., None])


def harbour() -> Picture:
    """Two boats on still water at dusk, the sun low over the sea and hills behind."""
    x, y = _grid()
    sky = _mix((58, 40, 92), (255, 150, 84), np.clip((y + 1) / 1.1, 0, 1))
    sky += (90 * np.exp(-10 * ((x - 0.45) ** 2 + (y - 0.02) ** 2)))[..., None]
    ripple = np.sin(70 * y * (1 + y) + 3 * np.sin(9 * x))
    water = _mix((30, 38, 84), (232, 132, 92), np.clip(0.55 - 0.5 * y + 0.12 * ripple, 0, 1))
    water += (70 * np.exp(-30 * (x - 0.45) ** 2) * (ripple > 0.2))[..., None]
    picture = np.where((y > 0.1)[..., None], water, sky)
    hills = (y > 0.06 - 0.14 * np.sin(2.1 * x + 2) - 0.04 * np.sin(9 * x)) & (y <= 0.1)
    picture[hills] = (56, 34, 70)
    for left, deck, size in ((-0.9, 0.34, 0.5), (0.1, 0.2, 0.26)):
        hull = (y > deck) & (y < deck + 0.22 * size) & (abs(x - left) < size - 1.6 * (y - deck))
        sail = (y < deck) & (y > deck - 1.3 * size) & (x > left) & (x - left < 0.5 * (y - deck + 1.3 * size))
        picture[hull], picture[sail] = (34, 24, 40), (244, 226, 204)
    return _pixels(picture)


def forest() -> Picture:
    """A pale path between trunks, light from above, leaves as noise from a fixed seed."""
    x, y = _grid()
    random = np.random.default_rng(7)
    leaves = np.kron(random.random((HEIGHT // 4, WIDTH // 4)), np.ones((4, 4)))
    picture = _mix((24, 74, 40), (150, 206, 92), np.clip(0.75 - 0.6 * y - 0.4 * abs(x) + 0.5 * (leaves - 0.5), 0, 1))
    ground = y > 0.15
    picture[ground] = _mix((58, 66, 30), (112, 118, 52), leaves)[ground]
    path = ground & (abs(x - 0.25 * np.sin(3 * y)) < 0.06 + 0.75 * (y - 0.15))
    picture[path] = _mix((176, 146, 98), (214, 188, 138), leaves)[path]
    for place in np.sort(random.uniform(0.35, 1.7, 7)):
        for side in (-1, 1):
            width, foot = 0.02 + 0.06 * place, 0.1 + 0.5 * (place - 0.3)
            trunk = (abs(x - side * place) < width) & (y < foot)
            bark = 0.5 + 0.5 * (x - side * place) / width
            picture[trunk] = _mix((46, 32, 24), (118, 84, 56), bark)[trunk]
    return _pixels(picture)


def balloons(time: float) -> Picture:
    """Three balloons over hills, ``time`` seconds into a slow flight to the right."""
    x, y = _grid()
    picture = _mix((92, 160, 226), (236, 238, 220), np.clip((y + 1) / 1.5, 0, 1))
    for scale, base, colour in ((1.4, 0.35, (122, 158, 138)), (2.6, 0.6, (84, 130, 84))):
        picture[y > base - 0.16 * np.sin(scale * (x + 0.25 * time * scale) + scale)] = colour
    for place, height, size, colour in ((-1.1, -0.3, 0.34, (214, 56, 52)), (0.1, -0.5, 0.22, (250, 190, 44)),
                                        (0.9, -0.1, 0.28, (96, 64, 170))):  # fmt: skip
        across, down = x - place - 0.2 * time, y - height + 0.08 * np.sin(1.5 * time + place)
        bag = across**2 + (0.85 * down) ** 2 < size**2
        stripe = (np.floor(6 * np.arcsin(np.clip(across / size, -1, 1))) % 2)[..., None]
        picture[bag] = (np.array(colour) * (1 - 0.35 * stripe) + 60 * stripe)[bag]
        basket = (abs(across) < 0.18 * size) & (abs(down - 1.5 * size) < 0.14 * size)
        picture[basket] = (88, 58, 36)
    return _pixels(picture)


def balloons_clip() -> bytes:
    """The flight as MP4: CLIP_FRAMES frames at FPS a second."""
    from gamecraft_core.media.fragment import encode_fragment

    frames = np.stack([balloons(number / FPS) for number in range(CLIP_FRAMES)])
    return encode_fragment(frames, index=0, start_frame=0, fps=FPS).data


def arc_poses(radius: float = 0.15, degrees: float = 24.0) -> str:
    """Rows of a camera that circles a point ``radius`` ahead of it, looking at it, with the actions' intrinsics."""
    lines = ["# index fx fy cx cy 0 0, then world-to-camera 3x4 row by row"]
    for number in range(POSE_ROWS):
        angle = np.radians(degrees) * number / (POSE_ROWS - 1)
        sine, cosine = np.sin(angle), np.cos(angle)
        rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        centre = np.array([radius * sine, 0, radius * (1 - cosine)])
        matrix = np.column_stack([rotation, -rotation @ centre]) + 0.0  # + 0.0: no negative zeros in the file
        values = [number, 0.50505, 0.8979, 0.5, 0.5, 0, 0, *matrix.round(9).ravel()]
        lines.append(" ".join(f"{value:.9g}" for value in values))
    return "\n".join(lines) + "\n"


PICTURES: dict[str, Callable[[], Picture]] = {"corridor": corridor, "harbour": harbour, "forest": forest}


def _grid() -> tuple[Plane, Plane]:
    """Pixel centres: y from -1 (top) to 1, x to the same scale."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    return (columns - WIDTH / 2) / (HEIGHT / 2), (rows - HEIGHT / 2) / (HEIGHT / 2)


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], share: Plane) -> Plane:
    """Colours [H, W, 3] between ``low`` (share 0) and ``high`` (share 1)."""
    mixed: Plane = np.array(low) + (np.array(high) - np.array(low)) * share[..., None]
    return mixed


def _pixels(picture: Plane) -> Picture:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

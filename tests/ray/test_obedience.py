"""The whole system does what the keys say: manifest, Ray, the published weights, mp4, and back from its pixels."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from jobs.config import load_preset
from jobs.demo import make_micro
from tests.ray.runs import Finished, synthesize
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray

Planes = npt.NDArray[np.float32]

#: Where the picture goes, x right and y down, when the camera turns that way.
GOES = {"left_rot:40": (1, 0), "right_rot:40": (-1, 0), "up_rot:25": (0, 1), "down_rot:25": (0, -1)}
#: Start pictures in which something stands out on all sides.
STARTS = ("blue-courtyard", "orange-corridor", "red-courtyard")
#: Frames between two that are compared, and how far a picture may have moved between them, in halved pixels.
_APART, _REACH = 6, 10


@pytest.fixture(scope="module")
def walks(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One chunk of every turn from every start."""
    folder = make_micro.HERE
    told = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    described = {row["session_id"]: row for row in told}
    rows = [
        described[start]
        | {"session_id": f"{start}-{turn.split(':')[0]}", "image": str(folder / f"{start}.png"), "actions": turn}
        for start in STARTS
        for turn in GOES
    ]
    return synthesize(tmp_path_factory.mktemp("walks"), rows, "laptop", preset="micro-gamecraft", settings=())


def test_every_walk_was_made_with_the_published_weights(walks: Finished) -> None:
    rows = walks.rows()
    assert walks.status == 0
    assert len(rows) == len(STARTS) * len(GOES)
    assert load_preset("micro-gamecraft").weights.kind == "files"


@pytest.mark.parametrize("turn", GOES)
def test_the_picture_goes_where_the_key_says(walks: Finished, turn: str) -> None:
    rows = walks.rows()
    drifts = [drift(luminance(walks.out / rows[f"{start}-{turn.split(':')[0]}"]["video_path"])) for start in STARTS]
    across, down = np.median(drifts, axis=0)
    wanted_across, wanted_down = GOES[turn]
    along, aside = (across, down) if wanted_across else (down, across)
    assert np.sign(along) == (wanted_across or wanted_down), drifts
    assert abs(along) > 2 * abs(aside), drifts


def test_drift_is_read_right() -> None:
    """A picture that is pushed two pixels a frame up and to the left is seen to go there."""
    noise = np.random.default_rng(0).random((140, 220), dtype=np.float32)
    whole = np.sum([np.roll(noise, (y, x), (0, 1)) for y in range(4) for x in range(4)], axis=0)
    frames = np.stack([whole[step : step + 96, 2 * step : 2 * step + 160] for step in range(20)])
    assert np.allclose(drift(frames), (-2 * _APART, -_APART), atol=1.0)


def luminance(video: Path) -> Planes:
    """Frames [n, H, W] of an mp4."""
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(np.float32)


def drift(frames: Planes) -> tuple[float, float]:
    """How far (x, y) in pixels the picture moves from a frame to that ``_APART`` later, on average over the clip."""
    halved = (frames[:, ::2, ::2] + frames[:, 1::2, ::2] + frames[:, ::2, 1::2] + frames[:, 1::2, 1::2]) / 4
    moves = [_shift(halved[at], halved[at + _APART]) for at in range(0, len(halved) - _APART, 3)]
    across, down = 2 * np.mean(moves, axis=0)
    return float(across), float(down)


def _shift(one: Planes, other: Planes) -> tuple[int, int]:
    """The whole shift (x, y) of ``one`` that agrees best with ``other`` where they overlap."""
    height, width = one.shape

    def error(x: int, y: int) -> float:
        kept = one[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
        met = other[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
        return float(np.abs(kept - met).mean())

    shifts = [(x, y) for x in range(-_REACH, _REACH + 1) for y in range(-_REACH, _REACH + 1)]
    return min(shifts, key=lambda shift: error(*shift))

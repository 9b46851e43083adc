"""The micro world's renderer: one seed, one picture; the product's camera; flow that agrees with the pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gamecraft_core.base.preset import ControlConfig
from gamecraft_core.base.spec import ACTIONS, ActionControl
from gamecraft_core.micro.episodes import CHUNK_FRAMES, STRIDE, draw_controls, make_episode, world_camera
from gamecraft_core.micro.flow import true_flow
from gamecraft_core.micro.words import AIRS, COLOUR_NAMES, PLACES, TIMES, Words
from gamecraft_core.micro.worlds import COLOURS, EYE, LIGHTS, WEATHERS, make_world
from gamecraft_core.timeline.camera import session_camera

SIZE = (48, 80)
LIMITS = ControlConfig(rotation_speed_max=45.0)
COURTYARD = Words("courtyard", "red", "noon", "clear")


def test_words_and_looks_are_the_same_lists() -> None:
    assert set(COLOUR_NAMES) == set(COLOURS)
    assert set(TIMES) == set(LIGHTS)
    assert set(AIRS) == set(WEATHERS)


@pytest.mark.parametrize("place", PLACES)
def test_a_seed_is_a_picture(place: str) -> None:
    words = Words(place, "green", "dusk", "misty")
    one, again, other = (make_episode(seed, 1, SIZE, LIMITS, words=words) for seed in (5, 5, 6))
    assert torch.equal(one.pictures.frames, again.pictures.frames)
    assert torch.equal(one.pictures.depth, again.pictures.depth)
    assert not torch.equal(one.pictures.frames, other.pictures.frames)
    assert one.pictures.frames.float().std() > 5


@pytest.mark.parametrize(
    ("changed", "value"), [("place", "hills"), ("colour", "blue"), ("light", "night"), ("weather", "misty")]
)
def test_every_word_shows(changed: str, value: str) -> None:
    still = [ActionControl("w", 0.0)]
    plain = make_episode(9, 1, SIZE, LIMITS, words=COURTYARD, controls=still)
    words = Words(**{**{name: getattr(COURTYARD, name) for name in Words.__slots__}, changed: value})
    other = make_episode(9, 1, SIZE, LIMITS, words=words, controls=still)
    assert (plain.chunk(0)[0].float() - other.chunk(0)[0].float()).abs().mean() > 2


def test_poses_are_the_products_own() -> None:
    episode = make_episode(3, 2, SIZE, LIMITS)
    poses, lenses = session_camera(episode.controls, CHUNK_FRAMES, *SIZE)
    assert np.array_equal(episode.poses[:, :, :3], poses[:, :, :3])
    assert np.allclose(episode.poses[:, :, 3], STRIDE * poses[:, :, 3])
    assert np.array_equal(episode.lenses, lenses)


def test_drawn_paths_stay_in_the_world() -> None:
    for seed in range(40):
        controls = draw_controls(np.random.default_rng(seed), 3, LIMITS)
        poses, _ = world_camera(controls, (8, 8))
        assert poses[:, 1, 3].max() < EYE
        assert abs(poses[:, 1, 2]).max() < 0.8


def test_boxes_keep_off_the_path() -> None:
    path = np.array([[0, 0, z] for z in np.linspace(0, 30, 33)], dtype=np.float64)
    for seed in range(20):
        for low, high in make_world(seed, COURTYARD, path).boxes:
            apart = np.maximum(np.maximum(low - path, path - high), 0)[:, [0, 2]]
            assert np.hypot(*apart.T).min() >= 4.9


#: Where the picture goes when the camera does this: sign of the mean flow's x and y, or 0 where it spreads out.
_GOES = {"a": (1, 0), "d": (-1, 0), "left_rot": (1, 0), "right_rot": (-1, 0), "up_rot": (0, 1), "down_rot": (0, -1)}


@pytest.mark.parametrize("action", ACTIONS)
def test_flow_goes_where_the_action_says(action: str) -> None:
    speed = 20.0 if action.endswith("_rot") else 2.5
    episode = make_episode(4, 1, SIZE, LIMITS, words=COURTYARD, controls=[ActionControl(action, speed)])
    flow = true_flow(episode.pictures.depth[0], episode.lenses[0], episode.poses[0], episode.poses[8])
    if action in _GOES:
        axis = 0 if _GOES[action][0] else 1
        assert (torch.sign(flow[..., axis]) == _GOES[action][axis]).float().mean() > 0.95
        return
    centre = flow.shape[1] / 2
    outward = flow[..., 0] * torch.sign(torch.arange(flow.shape[1]) + 0.5 - centre)
    assert torch.sign(outward.nanmean()) == (1 if action == "w" else -1)


@pytest.mark.parametrize("action", ["d", "left_rot", "w"])
def test_flow_takes_one_picture_to_the_next(action: str) -> None:
    """The later picture, fetched along the flow, is the earlier one: much nearer than without the fetching."""
    speed = 8.0 if action == "left_rot" else 1.2
    episode = make_episode(4, 1, (96, 160), LIMITS, words=COURTYARD, controls=[ActionControl(action, speed)])
    flow = true_flow(episode.pictures.depth[0], episode.lenses[0], episode.poses[0], episode.poses[24])
    first, later = (episode.pictures.frames[index].float().permute(2, 0, 1)[None] for index in (0, 24))
    size = torch.tensor([160.0, 96.0])
    places = torch.stack(torch.meshgrid(torch.arange(96) + 0.5, torch.arange(160) + 0.5, indexing="ij")[::-1], dim=-1)
    grid = (places + flow) / size * 2 - 1
    inside = (grid.abs() < 0.95).all(dim=-1)
    fetched = F.grid_sample(later, grid[None], align_corners=False)
    moved, still = (((picture - first)[0].abs().mean(0))[inside].mean() for picture in (fetched, later))
    assert moved < 0.5 * still

"""A newcomer's family, built from the page alone: planned, loaded, denoised by groups of any size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import DenoiseOrder, TextPayload, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl, MotionControl
from gamecraft_core.parallel.collective import Collective, Distributed, Solo
from jobs.config import load_preset
from jobs.plan import main as plan
from orchestrator.manifest.rows import check_preset
from tests.fakes.adding import PAGE, write_family
from tests.fakes.gloo import run_ranks

SHAPE = (16, 5, 8, 12)
TOLERANCE = 1e-4


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Preset]:
    path = write_family(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield load_preset(str(path))
    sys.modules.pop("signpost", None)


def walked(preset: Preset, collective: Collective, *actions: str) -> np.ndarray:
    """Chunks under ``actions``, each after the one before."""
    from actors import models

    denoiser = models.denoiser(preset, torch.device("cpu"), collective)
    draw = np.random.default_rng(0)
    states = TextStates(draw.standard_normal((7, 64), np.float32), draw.standard_normal(48, np.float32))
    latents = draw.standard_normal((16, 1, 8, 12), np.float32)
    chunks = []
    for index, action in enumerate(actions):
        order = DenoiseOrder(
            session_id="s",
            index=index,
            control=ActionControl(action, 1.0),
            seed=3,
            steps=2,
            guidance=1.0,
            shift=5.0,
            height=64,
            width=96,
            chunk_frames=17,
        )
        latents = denoiser.denoise(order, TextPayload(states), latents)
        chunks.append(latents)
        with pytest.raises(BadInput, match="single actions"):
            denoiser.denoise(replace(order, control=MotionControl((("w", 1.0),))), TextPayload(states), latents)
    return np.stack(chunks)


def on_rank(rank: int, folder: str, path: str) -> torch.Tensor:
    sys.path.insert(0, folder)
    return torch.from_numpy(walked(load_preset(path), Distributed(), "w", "left_rot"))


def test_the_page_is_short_enough_to_be_followed() -> None:
    assert len(PAGE.read_text().splitlines()) <= 150


def test_its_actions_decide_its_chunks(preset: Preset) -> None:
    check_preset(preset)
    one, other = walked(preset, Solo(), "w", "d"), walked(preset, Solo(), "w", "left_rot")
    assert one.shape == (2, *SHAPE)
    assert np.array_equal(one[0], other[0])
    assert np.abs(one[1] - other[1]).mean() > 0.01


@pytest.mark.parametrize("world", [2, 4])
def test_groups_of_any_size_agree(preset: Preset, tmp_path: Path, world: int) -> None:
    alone = walked(preset, Solo(), "w", "left_rot")
    room = tmp_path / str(world)
    room.mkdir()
    for shared in run_ranks(world, on_rank, room, str(tmp_path), str(tmp_path / "signpost.yaml")):
        assert np.abs(shared.numpy() - alone).max() <= TOLERANCE


def test_it_is_planned_like_any_other(preset: Preset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(["--preset", str(tmp_path / "signpost.yaml"), "--cluster", "2xA100-80"]) == 0
    assert "signpost" in capsys.readouterr().out

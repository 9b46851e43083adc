"""HunyuanVideo's denoiser: what its result depends on, its plan, guidance in both ways, the flow switch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import FloatArray, TextPayload
from gamecraft_core.families.hunyuan_video import HunyuanVideoDenoiser, build_model
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.sampling.guidance import combine, embedded
from gamecraft_core.sampling.noise import draw
from gamecraft_core.timeline.schedule import make_schedule
from gamecraft_core.timeline.whole_video import plan_video
from tests.fakes.tiny_model import text
from tests.fakes.tiny_video import NONE, video_model, video_order, video_preset

PRESET = video_preset()
RUNNER = HunyuanVideoDenoiser(PRESET, video_model(PRESET), Solo())
STREAM = RUNNER.stream((5, 2, 6), 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(prompts: TextPayload | None = None, **changes: Any) -> FloatArray:
    return RUNNER.denoise(video_order(**changes), prompts or text(), NONE)


def test_a_video_repeats_to_the_bit_and_every_setting_matters() -> None:
    plain = made()
    assert plain.shape == (16, 5, 2, 6)
    assert plain.dtype == np.float32
    guided = made(guidance=3.0)
    np.testing.assert_array_equal(made(), plain)
    changes: list[dict[str, Any]] = [{"seed": 12}, {"shift": 5.0}, {"embedded_guidance": 4.0}, {"flow_reverse": False}]
    for change in changes:
        assert abs(made(**change) - plain).max() > 1e-4, change
    of_guidance: list[dict[str, Any]] = [{"guidance": 1.0}, {"guidance_rescale": 0.7}, {"embedded_guidance": 4.0}]
    for change in of_guidance:
        assert abs(made(**({"guidance": 3.0} | change)) - guided).max() > 1e-4, change


def test_one_frame_is_a_video_too() -> None:
    assert made(chunk_frames=1).shape == (16, 1, 2, 6)


def test_given_noise_replaces_the_draw() -> None:
    noise = draw(11, 0, "start_noise", (16, 5, 2, 6))
    np.testing.assert_array_equal(RUNNER.denoise(video_order(seed=5), text(), NONE, noise=noise), made())


def test_both_branches_are_told_the_same_guidance() -> None:
    branches = RUNNER.branches(video_order(guidance=3.0, embedded_guidance=4.5), text(), STREAM)
    assert [branch.prompt.guidance for branch in branches] == [4500.0, 4500.0]
    assert [len(branch.prompt.states) for branch in branches] == [4, 7]
    for only in (0, 1):
        (one,) = RUNNER.branches(video_order(guidance=3.0), text(), STREAM, only=only)
        assert len(one.prompt.states) == (4, 7)[only]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        made(TextPayload(text().positive), guidance=2.0)
    with pytest.raises(ValueError, match="fit"):
        RUNNER.denoise(video_order(), text(), NONE, noise=np.zeros((16, 4, 2, 6), np.float32))
    with pytest.raises(ValueError, match="fit"):
        RUNNER.denoise(video_order(), text(), np.zeros((16, 1, 2, 6), np.float32))
    branch = RUNNER._branch(text().positive)
    with pytest.raises(ValueError, match="guidance"):
        RUNNER.predict(torch.zeros(16, 1, 2, 6), branch, 5.0, RUNNER.stream((1, 2, 6), None))


def test_guidance_as_the_model_is_told_it() -> None:
    """Rounded to the model's type before and after the multiplication."""
    assert [embedded(6.0, dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)] == [6000, 6000, 6016]


def test_a_model_of_bfloat16_is_bfloat16_throughout() -> None:
    model = build_model(PRESET, "cpu", torch.bfloat16)
    assert {value.dtype for value in model.state_dict().values()} == {torch.bfloat16}
    model.load_state_dict(RUNNER.model.state_dict())
    rough = HunyuanVideoDenoiser(PRESET, model, Solo())
    (branch,) = rough.branches(video_order(), text(), STREAM)
    assert branch.prompt.guidance == 6016
    exactly: dict[str, Any] = {"embedded_guidance": 4.0}  # 4000 is 4000 in bfloat16, too
    error = abs(rough.denoise(video_order(**exactly), text(), NONE) - made(**exactly)).mean()
    assert 1e-4 < error < 0.1, error


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_guidance_rescale_moves_the_spread(rescale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    negative, positive = (torch.randn(4, 5, 6, generator=generator) for _ in range(2))
    plain, moved = combine([negative, positive], 6.0), combine([negative, positive], 6.0, rescale)
    share = moved / plain
    torch.testing.assert_close(share, share.mean().expand_as(share))
    expected = rescale * positive.std() + (1 - rescale) * plain.std()
    torch.testing.assert_close(moved.std(), expected)


def test_the_flow_switched_off_runs_the_other_way() -> None:
    on, off = make_schedule(8, 7.0), make_schedule(8, 7.0, reverse=False)
    np.testing.assert_array_equal(off.sigmas, np.float32(1) - on.sigmas)
    np.testing.assert_array_equal(off.timesteps, off.sigmas[:-1] * np.float32(1000))
    assert (off.timesteps[0], on.timesteps[0]) == (0, 1000)


@pytest.mark.parametrize(
    ("size", "latents"),
    [((129, 720, 1280), (33, 90, 160)), ((129, 544, 960), (33, 68, 120)), ((1, 16, 16), (1, 2, 2))],
)
def test_plans_of_the_published_sizes(size: tuple[int, int, int], latents: tuple[int, int, int]) -> None:
    assert plan_video(*size) == latents


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((128, 720, 1280), r"frames: .*125 or 129"),
        ((0, 720, 1280), r"frames: .*4n\+1, from 1 to 129"),
        ((133, 720, 1280), r"frames: .*129"),
        ((129, 728, 1280), r"height: .*720 or 736"),
        ((129, 720, 8), r"width: .*16 or 32"),
    ],
)
def test_impossible_sizes_are_refused_with_what_is_near(size: tuple[int, int, int], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        plan_video(*size)

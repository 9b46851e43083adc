"""HunyuanVideo's denoiser after an image: the shapes of its videos, and what they depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.family import family_of
from gamecraft_core.base.messages import FloatArray
from gamecraft_core.families.history import with_history
from gamecraft_core.families.hunyuan_video_i2v import ImageToVideoDenoiser
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.sampling.noise import draw
from jobs.config import load_preset
from tests.fakes.tiny_model import text
from tests.fakes.tiny_video import NONE, i2v_model, i2v_preset, start_image, video_order

PRESET = i2v_preset()
RUNNER = ImageToVideoDenoiser(PRESET, i2v_model(PRESET), Solo())


def made(image: FloatArray | None = None, **changes: Any) -> FloatArray:
    return RUNNER.denoise(video_order(**changes), text(), start_image() if image is None else image)


@pytest.mark.parametrize(("frames", "latents"), [(5, 2), (17, 5), (33, 9)])
def test_the_video_begins_with_its_image_and_has_the_frames_asked_for(frames: int, latents: int) -> None:
    video = made(chunk_frames=frames, steps=1)
    assert video.shape == (16, latents, 2, 6)
    assert video.dtype == np.float32
    np.testing.assert_array_equal(video[:, :1], start_image())


def test_it_repeats_to_the_bit_and_every_setting_matters() -> None:
    plain = made()
    np.testing.assert_array_equal(made(), plain)
    assert abs(made(start_image(6)) - plain)[:, 1:].max() > 1e-4
    changes: list[dict[str, Any]] = [{"seed": 12}, {"shift": 5.0}, {"embedded_guidance": 4.0}, {"guidance": 3.0}]
    for change in changes:
        assert abs(made(**change) - plain)[:, 1:].max() > 1e-4, change


def test_the_noise_is_of_the_frames_after_the_image() -> None:
    noise = draw(11, 0, "start_noise", (16, 4, 2, 6))
    given = RUNNER.denoise(video_order(seed=5), text(), start_image(), noise=noise)
    np.testing.assert_array_equal(given, made())


def test_the_model_sees_the_image_beside_the_noise_and_a_mask_on_it() -> None:
    """One step of the whole input, put together here, is the step that the denoiser takes."""
    image, noise = torch.from_numpy(start_image()), torch.from_numpy(draw(11, 0, "start_noise", (16, 4, 2, 6)))
    assert RUNNER.model.img_in.proj.weight.shape[1] == 33
    stream = RUNNER.stream((5, 2, 6), None)
    (branch,) = RUNNER.branches(video_order(), text(), stream)
    with torch.inference_mode():
        velocity = RUNNER.predict(with_history(image, noise), branch, 1000.0, stream)
    expected = (noise - velocity[:, 1:]).numpy()
    np.testing.assert_allclose(made(steps=1)[:, 1:], expected, atol=2e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadInput, match="give 5"):
        made(chunk_frames=1)
    for nothing in (None, NONE):
        with pytest.raises(ValueError, match="fit"):
            RUNNER.denoise(video_order(), text(), nothing)


def test_the_built_in_preset_is_of_this_family() -> None:
    family = family_of(load_preset("tiny-hunyuan-video-i2v").family)
    assert (family.starts, family.length, family.keeps_start) == (("image",), "frames", False)

"""Previews: colours learnt from a VAE whose colours are known, from the tiny one, and at the decode lane."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from actors import models
from actors.decode import DecodeActor
from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.preset import VaeConfig
from gamecraft_core.families.paint import ChunkPainter
from gamecraft_core.media.fragment import encode_fragment
from gamecraft_core.media.jpeg import singles, strip
from gamecraft_core.vae.preview import learn
from jobs.config import resolve
from tests.fakes.recordings import flat_frames


class LinearVae:
    """Latents are sums of a place's three colours, and some that say nothing of them; so is what it decodes."""

    def __init__(self, config: VaeConfig) -> None:
        draw = np.random.default_rng(3)
        self.channels, self.ratio = config.latent_channels, config.time_compression_ratio
        self.up: FloatArray = draw.standard_normal((3, self.channels), np.float32)
        self.down = np.linalg.pinv(self.up).astype(np.float32)
        self.silent = (np.eye(self.channels) - self.down @ self.up).astype(np.float32)

    def encode_clip(self, pixels: npt.NDArray[np.uint8], seed: int) -> FloatArray:
        kept = pixels[:: self.ratio]
        count, height, width, _ = kept.shape
        colours = kept.reshape(count, height // 8, 8, width // 8, 8, 3).mean((2, 4)) / 255
        noise = np.random.default_rng(seed).standard_normal((*colours.shape[:-1], self.channels))
        latents: FloatArray = np.moveaxis(colours @ self.up + noise @ self.silent, -1, 0).astype(np.float32)
        return latents

    def decode(self, latents: FloatArray) -> npt.NDArray[np.uint8]:
        colours = np.tensordot(latents, self.down, axes=(0, 0)) * 255
        frames = np.concatenate([colours[:1], colours[1:].repeat(self.ratio, axis=0)])
        return frames.repeat(8, axis=1).repeat(8, axis=2).round().clip(0, 255).astype(np.uint8)


CONFIG = VaeConfig(block_out_channels=(8, 16, 16, 16))


def test_colours_of_a_linear_vae_are_found() -> None:
    vae = LinearVae(CONFIG)
    preview = learn(vae, CONFIG)
    colours = np.random.default_rng(5).integers(40, 216, (2, 4, 6, 3), np.uint8)
    pixels = colours[[0, 1, 1, 1, 1]].repeat(8, axis=1).repeat(8, axis=2)
    shown = preview.frames(vae.encode_clip(pixels, 11))
    assert shown.shape == colours.shape
    # A ridge of a hundredth pulls colours towards the mean by a few levels.
    assert np.abs(shown.astype(int) - colours).max() < 12
    assert np.abs(shown.astype(int) - colours).mean() < 4


def test_any_vae_has_a_preview_and_always_the_same() -> None:
    preset = resolve("tiny-gamecraft").preset
    codec = models.vae_codec(preset, torch.device("cpu"))
    preview, again = learn(codec, preset.vae), learn(codec, preset.vae)
    assert np.array_equal(preview.weights, again.weights)
    assert np.array_equal(preview.bias, again.bias)
    clip = np.random.default_rng(9).integers(0, 255, (5, 16, 24, 3), np.uint8)
    shown = preview.frames(codec.encode_clip(clip, 0))
    assert shown.shape == (2, 2, 3, 3)
    assert shown.std() > 0


def test_a_decode_lane_previews_once_it_has_learnt() -> None:
    from PIL import Image

    actor: Any = DecodeActor("decode-0", resolve("tiny-gamecraft").preset, 1, {})
    actor._codec = LinearVae(CONFIG)
    actor._painter = ChunkPainter(actor._preset, actor._codec)
    latents = np.zeros((16, 9, 4, 6), np.float32)
    assert actor.preview(latents) is None
    actor.learn_preview()
    picture, frames = actor.preview(latents)
    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.size, frames) == ("JPEG", (9 * 6, 4), 9)


def test_a_strip_goes_from_left_to_right() -> None:
    from PIL import Image

    with Image.open(io.BytesIO(strip(flat_frames([10, 120, 240], 8, 16)))) as image:
        assert [image.getpixel((8 + 16 * place, 4)) for place in range(3)] == [(n, n, n) for n in (10, 120, 240)]


@pytest.mark.parametrize("longest", [24, 48, 1000])
def test_frames_of_a_fragment_one_by_one(longest: int) -> None:
    from PIL import Image

    levels = [30, 90, 150, 210]
    mp4 = encode_fragment(flat_frames(levels), index=3, start_frame=99, fps=25).data
    pictures = [Image.open(io.BytesIO(each)) for _, each in singles(mp4, longest)]
    assert [number for number, _ in singles(mp4, longest)] == [99, 100, 101, 102]
    assert [image.size for image in pictures] == [(24, 16) if longest == 24 else (48, 32)] * 4
    assert [image.getpixel((5, 5))[0] for image in pictures] == pytest.approx(levels, abs=4)  # type: ignore[index]

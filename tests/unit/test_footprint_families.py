"""Memory predictions of every family against tensors that are really there, at sizes that fit a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gamecraft_core.base.family import family_of, load
from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.family import family_work
from gamecraft_core.families.denoiser import Denoiser
from gamecraft_core.families.framepack_start import build_siglip
from gamecraft_core.footprint import sample
from gamecraft_core.footprint.live_bytes import LiveBytes
from gamecraft_core.footprint.predict import (
    chunk_peak,
    condition_bytes,
    decode_role,
    denoise_activations,
    encode_role,
    rank_weights,
)
from gamecraft_core.footprint.vision import vision_sizes, vision_weights
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from jobs.config import load_preset
from tests.fakes.tiny_model import draw_weights

#: As in ``test_footprint``: the CPU's own kernels hold a little more or less.
FACTOR, DECODED = 1.25, 1.5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sized(name: str, **sampling: Any) -> Preset:
    """Large enough that tokens make the peak, and of one pass a step."""
    values = load_preset(name).model_dump()
    values["dit"] |= {"depth_double_blocks": 2, "depth_single_blocks": 3, "hidden_size": 48, "num_heads": 6}
    values["dit"]["rope_dim_list"] = (2, 2, 4)
    values["video"] |= {"height": 128, "width": 160}
    values["sampling"] |= {"steps": 4, "guidance": 1.0, "tea_cache": 0.0} | sampling
    return Preset.model_validate(values)


def runner_of(preset: Preset) -> Denoiser[Any]:
    denoiser = load(family_of(preset.family).denoiser)
    made: Denoiser[Any] = denoiser(preset, draw_weights(denoiser.build_model(preset, "cpu", torch.float32), 7), Solo())
    return made


@pytest.mark.parametrize(
    ("name", "continuing"),
    [
        ("tiny-hunyuan-video", True),  # a whole video stands for both kinds
        ("tiny-hunyuan-video-i2v", False),
        ("tiny-framepack", False),
        ("tiny-framepack", True),
    ],
)
def test_a_denoise_of_every_family(name: str, continuing: bool) -> None:
    preset = sized(name)
    runner = runner_of(preset)
    assert rank_weights(preset) == sum(weight.nbytes for weight in runner.model.parameters())
    actual = chunk_peak(runner, preset, continuing=continuing)
    predicted = denoise_activations(preset, continuing=continuing) - condition_bytes(preset)
    assert 1 / FACTOR < predicted / actual < FACTOR


def test_what_tea_cache_keeps() -> None:
    """The growth of a real chunk's peak."""

    def peak(preset: Preset) -> int:
        runner, new = runner_of(preset), family_work(preset).new
        order = sample.order(preset, continuing=True)
        given = sample.history(preset, continuing=True), sample.start(preset)
        with LiveBytes("cpu") as live:
            runner.denoise(order, sample.text(preset), *given, noise=sample.latents(preset, new))
        return live.peak

    plain, cached = sized("tiny-framepack"), sized("tiny-framepack", tea_cache=0.15)
    predicted = denoise_activations(cached, continuing=True) - denoise_activations(plain, continuing=True)
    assert 1 / FACTOR < predicted / (peak(cached) - peak(plain)) < FACTOR


@pytest.mark.parametrize("name", ["tiny-hunyuan-video", "tiny-framepack", "tiny-framepack-f1"])
def test_a_decode_of_every_family(name: str) -> None:
    """The largest of a session's chunks."""
    preset = load_preset(name)
    own, vae = family_work(preset), CausalVae(preset.vae)
    painter = load(own.family.painter)(preset, VaeCodec(preset, vae, "cpu"))
    peaks = []
    for index in range(3 if own.continues else 1):
        order = sample.decode_order(preset, index, 3 if own.continues else 1)
        with LiveBytes("cpu") as live:
            frames = painter.frames(order, sample.latents(preset, own.payload), sample.start(preset))
        assert len(frames) == order.frames
        peaks.append(live.peak)
    assert 1 / DECODED < decode_role(preset).activations / max(peaks) < DECODED


def test_the_image_encoder_s_weights_are_exact() -> None:
    """Of the published one with the pooling head that is left out: 428,225,600 parameters."""
    preset = load_preset("tiny-framepack")
    model, _ = build_siglip(preset, torch.device("meta"))
    held = sum(weight.nbytes for weight in (*model.parameters(), *CausalVae(preset.vae).parameters()))
    assert encode_role(preset).weights == held
    sizes = vision_sizes(load_preset("framepack"))
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    head = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 2 * hidden + hidden
    assert vision_weights(sizes) + head == 428_225_600

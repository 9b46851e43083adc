"""The work of every family's chunk against PyTorch's own counter over the real code, and against published sizes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import SiglipVisionConfig, SiglipVisionModel

from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.family import Family, family_of, load
from gamecraft_core.base.messages import DenoiseOrder
from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.chunk import chunk_work
from gamecraft_core.costs.dit import conditions_work
from gamecraft_core.costs.family import family_work
from gamecraft_core.costs.vae import decode_work
from gamecraft_core.costs.vision import vision_work
from gamecraft_core.dit.stream import Grid, Stream
from gamecraft_core.families.denoiser import Denoiser, TokensAt
from gamecraft_core.families.hunyuan_video import HunyuanVideoDenoiser
from gamecraft_core.footprint import sample
from gamecraft_core.footprint.predict import META
from gamecraft_core.footprint.vision import image_tokens, vision_sizes
from gamecraft_core.timeline.whole_video import plan_video
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from jobs.config import load_preset
from tests.unit.test_costs import Made, Tallied, fused

#: Tiny presets, and a family of one's own.
FAMILIES = ("tiny-gamecraft", "tiny-hunyuan-video", "tiny-hunyuan-video-i2v", "tiny-framepack", "own")
#: Turning the viewing rays of GameCraft's camera is not counted.
RAYS = {"tiny-gamecraft": 0.002}


class Longer(HunyuanVideoDenoiser):
    """A family of one's own: HunyuanVideo's model, each chunk after the whole one before, all of it noisy input."""

    def _planned(self, order: DenoiseOrder, history: int) -> tuple[int, Grid]:
        return history, plan_video(order.chunk_frames, order.height, order.width)

    def _patches(self, past: torch.Tensor, blank: torch.Tensor, stream: Stream) -> TokensAt:
        return lambda latents: self.patch_tokens(torch.cat([past, latents], dim=1), stream)


OWN = Family(f"{__name__}:OWN", starts=("image",), length="actions", denoiser=f"{__name__}:Longer")


def small(name: str, guidance: float = 1.0) -> Preset:
    """Two steps, which tell what is done once a chunk from what is done at each; TeaCache off."""
    preset = load_preset("tiny-hunyuan-video" if name == "own" else name)
    values = preset.model_dump()
    values["dit"] |= {"depth_double_blocks": 1, "depth_single_blocks": 2}
    values["sampling"] |= {"steps": 2, "guidance": guidance, "tea_cache": 0.0}
    return Preset.model_validate(values | ({"family": OWN.name} if name == "own" else {}))


def run(runner: Denoiser[Any], preset: Preset, continuing: bool) -> None:
    """A chunk to its last step: without storage there are no latents to hand out."""
    order = sample.order(preset, continuing=continuing)

    def stop(done: int, latents: torch.Tensor) -> None:
        if done == order.steps:
            raise Made

    with pytest.raises(Made):
        runner.denoise(
            order,
            sample.text(preset),
            sample.history(preset, continuing=continuing),
            sample.start(preset),
            on_step=stop,
            noise=sample.latents(preset, family_work(preset).new),
        )


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize(
    ("name", "guidance"), [*((name, 1.0) for name in FAMILIES), ("tiny-hunyuan-video", 3.0), ("tiny-framepack", 3.0)]
)
def test_a_chunk_is_counted_exactly(name: str, guidance: float, world: int) -> None:
    preset, group = small(name, guidance), Tallied(world)
    denoiser = load(family_of(preset.family).denoiser)
    model = denoiser.build_model(preset, META, torch.float32)
    runner = denoiser(preset, model, group, attend=JointAttention(fused, group))
    for continuing in (False, True) if family_work(preset).continues else (False,):
        group.sent = group.calls = 0
        with FlopCounterMode(display=False) as counter:
            run(runner, preset, continuing)
        work = chunk_work(preset, continuing=continuing, world=world)
        assert work.flops == pytest.approx(counter.get_total_flops(), rel=RAYS.get(name, 1e-12))
        assert (work.link_bytes, work.exchanges) == (group.sent, group.calls)


@pytest.mark.parametrize("name", ["tiny-gamecraft", "tiny-hunyuan-video-i2v", "tiny-framepack", "tiny-framepack-f1"])
@pytest.mark.parametrize("side", [64, 256])
def test_what_a_chunk_decodes_is_counted_exactly(name: str, side: int) -> None:
    """In tiles of time, and of space where they are small."""
    preset = load_preset(name)
    vae = preset.vae.model_copy(update={"sample_size": side, "sample_tsize": 16})
    preset = preset.model_copy(update={"vae": vae})
    own = family_work(preset)
    painter = load(own.family.painter)(preset, VaeCodec(preset, CausalVae(vae), META))
    for continuing in (False, True):
        order = sample.decode_order(preset, *own.place(continuing=continuing))
        with FlopCounterMode(display=False) as counter, contextlib.suppress(NotImplementedError):
            painter.frames(order, sample.latents(preset, own.payload), sample.start(preset))
        assert decode_work(preset, continuing=continuing).flops == counter.get_total_flops()
        assert own.settled(*own.place(continuing=continuing)) == order.frames
    assert counter.get_total_flops() > 0


def test_sections_cost_the_same_at_any_length() -> None:
    """And the first of an inverted video settles nothing, unless it is the only one."""
    preset = load_preset("framepack")
    own = family_work(preset)
    assert len({decode_work(preset, chunks=chunks).flops for chunks in (2, 20, 100)}) == 1
    assert decode_work(preset, continuing=False).flops == 0
    assert decode_work(preset, continuing=False, chunks=1).flops > 0
    later, first = (chunk_work(preset, continuing=each).flops for each in (True, False))
    tables = conditions_work(preset.dit, preset.text.max_tokens, preset.sampling.steps).flops
    assert first - later == pytest.approx(tables)
    assert own.rows(continuing=True) == own.rows(continuing=False)


def test_published_sizes() -> None:
    """HunyuanVideo: 33 latent frames of 45 x 80 tokens; FramePack: what was measured of its real model's packing."""
    whole = family_work(load_preset("hunyuan-video")).rows(continuing=False)
    assert (whole.total, whole.new, whole.text) == (118_800, 118_800, 256)
    section = family_work(load_preset("framepack")).rows(continuing=True)
    assert (section.total, section.new, section.text) == (17_500, 13_680, 256 + 729)


@torch.inference_mode()
def test_the_image_encoder_is_counted() -> None:
    preset = load_preset("tiny-framepack")
    sizes: dict[str, Any] = {**vision_sizes(preset)}
    config = SiglipVisionConfig(**sizes)
    config._attn_implementation = "eager"  # the counter knows its matmuls
    config.vision_use_head = False
    with META:
        model = SiglipVisionModel(config)
        pixels = torch.zeros(1, 3, sizes["image_size"], sizes["image_size"])
    with FlopCounterMode(display=False) as counter:
        states = model(pixel_values=pixels).last_hidden_state
    assert states.shape[1] == image_tokens(preset) == 16
    assert vision_work(preset).flops == counter.get_total_flops()

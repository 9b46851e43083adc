"""Counted work against PyTorch's own counter over the real code, and against published figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.chunk import chunk_work
from gamecraft_core.costs.dit import Sequence, conditions_work, forward_work
from gamecraft_core.costs.family import family_work
from gamecraft_core.costs.text import clip_work, llm_work, text_work
from gamecraft_core.costs.vae import cut, decode_work, encode_work
from gamecraft_core.dit.stream import Prompt
from gamecraft_core.families.gamecraft import GameCraftDenoiser, build_model
from gamecraft_core.families.history import tokens_after
from gamecraft_core.footprint.predict import META
from gamecraft_core.footprint.text import clip_sizes, llm_sizes
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.text.models import build_clip, build_llm
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.vae.tiling import Tiling
from jobs.config import load_preset
from tests.fakes.tiny_model import order, text, tiny_preset


@dataclass
class Tallied:
    """The last of ``world`` ranks: what would arrive has the right shape, and what it sends is added up."""

    world: int
    sent: int = 0
    calls: int = 0

    @property
    def rank(self) -> int:
        return self.world - 1

    def all_to_all(self, parts: Tensor) -> Tensor:
        self._note(parts.nbytes // self.world)
        return torch.empty_like(parts.contiguous())

    def all_gather(self, rows: Tensor) -> Tensor:
        self._note(rows.nbytes)
        return rows.new_empty((self.world * len(rows), *rows.shape[1:])) if self.world > 1 else rows

    def _note(self, to_each: int) -> None:
        self.sent += (self.world - 1) * to_each
        self.calls += self.world > 1


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("continuing", [False, True])
@torch.inference_mode()
def test_a_forward_is_counted_exactly(world: int, continuing: bool) -> None:
    preset = tiny_preset(depth_double_blocks=2, depth_single_blocks=3)
    group = Tallied(world)
    model = build_model(preset, META, torch.float32)
    runner = GameCraftDenoiser(preset, model, group, attend=JointAttention(fused, group))
    rows = family_work(preset).rows(continuing=continuing)
    history = 9 if continuing else 1
    stream = runner.stream((history + 9, preset.video.height // 8, preset.video.width // 8), keep_frames=history)
    prompt = text(tokens=7).positive
    branch = runner.branch(prompt, torch.zeros(rows.new, 48, device=META), stream, (500.0,))
    rows = Sequence(rows.total, rows.new, 7)
    tokens = torch.zeros(stream.shard.local, 48, device=META)
    with FlopCounterMode(display=False) as counter:
        runner.velocity(tokens, branch, 500.0, stream)
    work = forward_work(preset.dit, rows, world, item=4)
    assert work.flops == counter.get_total_flops()
    assert (work.link_bytes, work.exchanges) == (group.sent, group.calls)


@torch.inference_mode()
def test_embedding_conditions_and_camera_are_counted_exactly() -> None:
    preset = tiny_preset()
    model = build_model(preset, META, torch.float32)
    states = text(tokens=7).positive
    prompt = Prompt(torch.tensor(states.states, device=META), torch.tensor(states.pooled, device=META))
    with FlopCounterMode(display=False) as counter:
        model.conditions(prompt, [900.0, 500.0, 100.0], fused)
    assert conditions_work(preset.dit, 7, steps=3).flops == counter.get_total_flops()

    video = preset.video
    with FlopCounterMode(display=False) as counter:
        model.camera_net(torch.zeros(video.chunk_frames, 6, video.height, video.width, device=META))
        model.camera_net.zero_token()
    assert family_work(preset).conditioning().flops == counter.get_total_flops()

    runner = GameCraftDenoiser(preset, model, Tallied(1))
    stream = runner.stream((10, 2, 6), keep_frames=1)
    past, new = torch.zeros(16, 1, 2, 6, device=META), torch.zeros(16, 9, 2, 6, device=META)
    with FlopCounterMode(display=False) as counter:
        tokens_at = tokens_after(model, past, new, stream, preset.dit.patch_size)
        tokens_at(new)
        tokens_at(new)
    assert family_work(preset).patches(local=30, new=27, steps=2).flops == counter.get_total_flops()


class Made(Exception):
    """Ends a chunk after its last step: without storage there are no latents to hand out."""


def test_a_whole_first_chunk_is_counted() -> None:
    values = tiny_preset().model_dump()
    values["sampling"]["guidance"], values["text"]["max_tokens"] = 1.0, 7
    preset = Preset.model_validate(values)
    alone = JointAttention(fused, Solo())
    runner = GameCraftDenoiser(preset, build_model(preset, META, torch.float32), Solo(), attend=alone)
    chunk = order(guidance=1.0, chunk_frames=33)

    def stop(done: int, latents: Tensor) -> None:
        if done == chunk.steps:
            raise Made

    with FlopCounterMode(display=False) as counter, pytest.raises(Made):
        runner.denoise(chunk, text(tokens=7), np.zeros((16, 1, 2, 6), np.float32), on_step=stop)
    # What is left out: turning the viewing rays of the camera.
    assert chunk_work(preset, continuing=False).flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_steps_guidance_and_cache_scale_a_chunk_as_they_should() -> None:
    base, distilled = load_preset("gamecraft"), load_preset("gamecraft-distill")
    eight = chunk_work(distilled, continuing=True).flops
    assert chunk_work(base, continuing=True).flops / eight == pytest.approx(100 / 8, rel=0.001)
    cached = chunk_work(base, continuing=True, cache=True).flops
    assert cached / eight == pytest.approx((100 - 2 * 15) / 8, rel=0.01)
    halves = chunk_work(base, continuing=True, world=2, split=True)
    assert halves.flops / chunk_work(base, continuing=True).flops == pytest.approx(0.5, rel=0.001)
    assert halves.link_bytes < chunk_work(base, continuing=True, world=2).link_bytes / 100


@pytest.mark.parametrize(("side", "tiled"), [((64, 96), False), ((88, 152), True)])
def test_the_vae_is_counted_exactly_with_its_overlap(side: tuple[int, int], tiled: bool) -> None:
    preset = load_preset("tiny-gamecraft")
    vae = preset.vae.model_copy(update={"sample_size": 64, "sample_tsize": 16, "tiling": tiled})
    video = preset.video.model_copy(update={"height": side[0], "width": side[1]})
    preset = preset.model_copy(update={"vae": vae, "video": video})
    codec = VaeCodec(preset, CausalVae(vae), META)
    latents = np.zeros((16, 9, side[0] // 8, side[1] // 8), np.float32)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        codec.decode_float(latents)
    assert decode_work(preset).flops == counter.get_total_flops()
    for frames in (1, 33):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            codec._vae.encode(torch.empty(1, 3, frames, *side, device=META))
        assert encode_work(preset, frames).flops == counter.get_total_flops()


def test_tiles_are_shared_out_whole() -> None:
    preset = load_preset("gamecraft-distill")
    tiles = cut((9, 88, 152), 16, 32, Tiling.of(preset.vae))
    assert len(tiles) == 4 * 7
    alone = decode_work(preset).flops
    assert decode_work(preset, 2).flops == alone / 2
    assert decode_work(preset, 3).flops == pytest.approx(alone * 10 / 28)


@torch.inference_mode()
def test_text_models_are_counted_exactly() -> None:
    preset = load_preset("tiny-gamecraft")
    llm, clip = (build(preset, torch.device("cpu")) for build in (build_llm, build_clip))
    for model in (llm, clip):
        model.config._attn_implementation = "eager"  # type: ignore[union-attr]  # the counter knows its matmuls
    ids = torch.zeros(1, 40, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        llm(input_ids=ids, use_cache=False)
    counted = counter.get_total_flops()
    work = llm_work(llm_sizes(preset), 40, preset.text.skip_layers)
    # Rotary tables are matmuls, too, of one per position; they are left out.
    assert work.flops == pytest.approx(counted, rel=0.01)
    with FlopCounterMode(display=False) as counter:
        clip(input_ids=ids)
    assert clip_work(clip_sizes(preset), 40).flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_published_sizes_give_the_figures_that_are_known_of_them() -> None:
    preset = load_preset("gamecraft-distill")
    first, later = (family_work(preset).rows(continuing=each) for each in (False, True))
    assert (first.total, later.total, first.text) == (33_440, 60_192, 256)
    assert forward_work(preset.dit, first).flops == pytest.approx(1.3e15, rel=0.05)
    continuing = forward_work(preset.dit, later)
    assert continuing.flops == pytest.approx(3.5e15, rel=0.05)
    assert continuing.attention / continuing.flops == pytest.approx(0.75, abs=0.02)
    assert text_work(preset).host_bytes == 0
    assert text_work(preset, offloaded=True).host_bytes == pytest.approx(13.4 * 2**30, rel=0.01)


def test_more_ranks_never_have_more_to_do() -> None:
    preset: Preset = load_preset("gamecraft-distill")
    flops = [chunk_work(preset, continuing=True, world=world).flops for world in (1, 2, 3, 4, 6, 8, 12, 24)]
    assert flops == sorted(flops, reverse=True)
    assert flops[0] / flops[5] == pytest.approx(8, rel=0.05)

"""How much memory each role of a preset needs, computed from the preset alone.

Weights are counted on a model built without storage. Activations are the most bytes of tensors alive at once while
the real code runs a chunk at the preset's size on the meta device, where nothing is computed: what a kernel keeps to
itself, CUDA's context, communication buffers and an allocator's losses come on top. Attention counts as a kernel
that forms no score matrix (flash_attn, or SDPA's own).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.family import family_of, load
from gamecraft_core.base.messages import DecodeOrder, FloatArray, StartPayload
from gamecraft_core.base.preset import Preset, SamplingConfig, WeightsConfig
from gamecraft_core.costs.dit import Share
from gamecraft_core.costs.family import family_work
from gamecraft_core.dit.layers import Modulation
from gamecraft_core.dit.stream import Prompt
from gamecraft_core.dit.trunk import Trunk
from gamecraft_core.families.denoiser import Denoiser
from gamecraft_core.families.paint import Painter
from gamecraft_core.footprint import sample
from gamecraft_core.footprint.live_bytes import LiveBytes
from gamecraft_core.footprint.role import Role
from gamecraft_core.footprint.vision import vision_sizes, vision_weights
from gamecraft_core.sampling.guidance import embedded, is_guided
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.quantise import is_quantised

META = torch.device("meta")

#: How a rank keeps its weights: all in ``runtime.dtype``, with ``runtime.fp8``, or with one of ``runtime.offload``.
Keeping = Literal["resident", "modulation", "blocks", "fp8"]
KEEPINGS: tuple[Keeping, ...] = ("resident", "fp8", "modulation", "blocks")


def rank_weights(preset: Preset, keeping: Keeping = "resident") -> int:
    """Bytes of the transformer's weights on the device of a rank; offloaded ones as the two slots of their feed."""
    model = _model(preset)
    total = sum(weight.nbytes for weight in model.parameters())
    if keeping == "resident":
        return total
    if keeping == "fp8":
        # One byte a weight, and a float32 scale a matrix.
        linears = (part for name, part in model.named_modules() if is_quantised(name))
        matrices = [part.weight for part in linears if isinstance(part, torch.nn.Linear)]
        return total - sum(weight.nbytes - weight.numel() - 4 for weight in matrices)
    modulation, rest = [], []
    for block in (*model.double_blocks, *model.single_blocks):
        parts = [part for part in block.modules() if isinstance(part, Modulation)]
        modulation.append(sum(weight.nbytes for part in parts for weight in part.parameters()))
        rest.append(sum(weight.nbytes for weight in block.parameters()) - modulation[-1])
    total -= sum(modulation) - 2 * max(modulation)
    return total if keeping == "modulation" else total - (sum(rest) - 2 * max(rest))


@cache
def condition_bytes(preset: Preset) -> int:
    """Bytes of the tables that one session's prompts and schedule make; a rank may keep more of earlier ones."""
    model, states = _model(preset), sample.text(preset).positive
    told = embedded(preset.sampling.embedded_guidance, model.dtype) if preset.dit.guidance_embed else None
    prompt = Prompt(torch.tensor(states.states, device=META), torch.tensor(states.pooled, device=META), told)
    with torch.inference_mode():
        (one,) = model.conditions(prompt, [0.0], formless_attention)
    return _branches(preset) * preset.sampling.steps * one.nbytes


def denoise_activations(preset: Preset, *, continuing: bool, world: int = 1) -> int:
    """The most bytes that denoising a chunk adds on one of ``world`` ranks that share its sequence."""
    own, branches = family_work(preset), _branches(preset)
    share = Share.of(own.rows(continuing=continuing), preset.dit, world)
    kept = (branches - 1) * own.added_bytes(share.local)
    if preset.sampling.tea_cache:  # the last input that was judged, what the blocks change, and the rows before them
        row = preset.dit.hidden_size * getattr(torch, preset.runtime.dtype).itemsize
        kept += (branches * (share.local + share.new) + share.new) * row
    return _imagined_chunk(_sizes_of(preset), continuing, world) + kept + condition_bytes(preset)


@cache
def _imagined_chunk(preset: Preset, continuing: bool, world: int) -> int:
    """The peak of a model with one block of each kind and a last one: deeper ones repeat it."""
    depth = {"depth_double_blocks": 1, "depth_single_blocks": min(2, preset.dit.depth_single_blocks)}
    shallow = preset.model_copy(update={"dit": preset.dit.model_copy(update=depth)})
    group = Imagined(world)
    attend = JointAttention(formless_attention, group)
    return chunk_peak(_denoiser(preset)(shallow, _model(shallow), group, attend=attend), preset, continuing=continuing)


def chunk_peak(runner: Denoiser[Any], preset: Preset, *, continuing: bool) -> int:
    """Peak of live bytes on ``runner``'s device while it makes the first two steps of an unguided chunk."""
    plain = _sizes_of(preset)
    order, noise = sample.order(plain, continuing=continuing), sample.latents(plain, family_work(plain).new)
    history, start = sample.history(plain, continuing=continuing), sample.start(plain)

    def stop(done: int, latents: Tensor) -> None:
        if done == 2:
            raise _Measured

    with LiveBytes(runner.model.device) as live:
        try:
            runner.denoise(order, sample.text(plain), history, start, on_step=stop, noise=noise)
        except _Measured:
            return live.peak
    raise AssertionError("a chunk of three steps ended before its second")


def decode_role(preset: Preset) -> Role:
    """A decode lane: the whole VAE, and a chunk's largest piece decoded with the preset's tiling to 8-bit frames."""
    return Role(_vae_weights(preset), _imagined_decode(_sizes_of(preset)))


def encode_role(preset: Preset) -> Role:
    """An encode lane: VAE and image encoder, and a start of the greatest length encoded with the preset's tiling."""
    seen = 0 if preset.vision is None else vision_weights(vision_sizes(preset))
    sight = seen * getattr(torch, preset.runtime.text_dtype).itemsize
    return Role(_vae_weights(preset) + sight, _imagined_encode(_sizes_of(preset)))


@cache
def _imagined_decode(preset: Preset) -> int:
    own, codec = family_work(preset), VaeCodec(preset, _vae(preset), META)
    painter: Painter = load(own.family.painter)(preset, codec)
    latents, start = sample.latents(preset, own.payload), sample.start(preset)
    chunks = own.place(continuing=True)[1]
    different = {own.decoded(index, chunks): index for index in range(chunks)}
    return max(
        _painted(painter, sample.decode_order(preset, index, chunks), latents, start) for index in different.values()
    )


def _painted(painter: Painter, order: DecodeOrder, latents: FloatArray, start: StartPayload | None) -> int:
    """The peak until frames would leave the device."""
    with LiveBytes(META) as live:
        try:
            painter.frames(order, latents, start)
        except NotImplementedError as error:  # there is nothing to be copied
            if "meta tensor" not in str(error):
                raise
    return live.peak


@cache
def _imagined_encode(preset: Preset) -> int:
    vae, video = _vae(preset), preset.video
    VaeCodec(preset, vae, META)  # it lays the VAE out
    frames = video.chunk_frames if "video" in family_of(preset.family).starts else 1
    with LiveBytes(META) as live, torch.inference_mode():
        pixels = torch.empty(1, 3, frames, video.height, video.width, device=META)
        vae.encode(pixels.to(getattr(torch, preset.runtime.vae_dtype)))
    return live.peak


class Imagined:
    """Rank 0 of a group that is not there: what would arrive has the right shape and no values."""

    rank = 0

    def __init__(self, world: int) -> None:
        self.world = world

    def all_to_all(self, parts: Tensor) -> Tensor:
        return torch.empty_like(parts.contiguous()) if self.world > 1 else parts

    def all_gather(self, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        return rows.new_empty((self.world * len(rows), *rows.shape[1:])) if self.world > 1 else rows


def formless_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What an attention kernel allocates: its answer and, while it runs, a float32 number a row and head."""
    q.new_empty(q.shape[:2], dtype=torch.float32)
    return q.new_empty(q.shape)


class _Measured(Exception):
    """Ends a chunk whose peak has been met."""


def _sizes_of(preset: Preset) -> Preset:
    """``preset`` without what shapes no tensor of a traced chunk, so that presets of one size are traced once."""
    plain = {
        "name": "any",
        "description": "",
        "weights": WeightsConfig(kind="random"),
        "sampling": SamplingConfig(steps=3, guidance=1.0, shift=preset.sampling.shift),
        "runtime": preset.runtime.model_copy(update={"compile": False}),
    }
    return preset.model_copy(update=plain)


def _branches(preset: Preset) -> int:
    return 2 if is_guided(preset.sampling.guidance) else 1


def _denoiser(preset: Preset) -> type[Denoiser[Any]]:
    found: type[Denoiser[Any]] = load(family_of(preset.family).denoiser)
    return found


def _model(preset: Preset) -> Trunk:
    """The family's model, without storage."""
    model: Trunk = _denoiser(preset).build_model(preset, META, getattr(torch, preset.runtime.dtype))
    return model


def _vae(preset: Preset) -> CausalVae:
    with META:
        vae = CausalVae(preset.vae)
    return vae.to(getattr(torch, preset.runtime.vae_dtype)).eval().requires_grad_(False)


def _vae_weights(preset: Preset) -> int:
    return sum(weight.nbytes for weight in _vae(preset).parameters())

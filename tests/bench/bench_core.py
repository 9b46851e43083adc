"""What the model's code costs beyond its own matmuls, convolutions and attention, on one CPU thread in float32.

A DiT forward (one guidance branch, one step of a continued chunk) and a VAE decode, each against its bare work in
interleaved pairs, in a process prepared as every lane's is. The forward's bare work is checked against what the sizes
demand, so that useless work cannot hide in it. Where there is a GPU, figures at the real size follow (``core_gpu``).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from actors import models
from gamecraft_core.base.messages import TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.families.gamecraft import GameCraftDenoiser, build_model
from gamecraft_core.families.history import tokens_after
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from tests.bench import core_gpu
from tests.bench.bare import Replay, record
from tests.bench.harness import Bench

PAIRS = 9
DIT_GOAL, VAE_GOAL, USEFUL_GOAL = 1.25, 1.20, 1.0005

SIZES: dict[str, Any] = {
    "name": "mid",
    "family": "gamecraft",
    "dit": {
        "hidden_size": 256,
        "num_heads": 4,
        "rope_dim_list": (16, 24, 24),
        "depth_double_blocks": 2,
        "depth_single_blocks": 4,
        "text_states_dim": 256,
        "text_states_dim_2": 64,
    },
    "vae": {"block_out_channels": (32, 64, 128, 128), "layers_per_block": 2, "norm_num_groups": 32, "tiling": False},
    "text": {"llm": "unused", "clip": "unused"},
    "weights": {"kind": "random"},
    "sampling": {"steps": 8, "guidance": 1.0, "shift": 5.0},
    "video": {"height": 128, "width": 224},
    "runtime": {"dtype": "float32", "vae_dtype": "float32"},
}
#: Latent frames with their history, and the real ones of 256 text tokens.
LATENTS, HISTORY, TEXT = (18, 16, 28), 9, 60
VAE_LATENTS = (9, 8, 14)

Run = Callable[[], Any]


def main() -> int:
    preset = Preset.model_validate(SIZES)
    models.prepare(preset, threads=1)
    torch.manual_seed(0)
    sizes = {"latents": LATENTS, "history": HISTORY, "text": TEXT, "vae_latents": VAE_LATENTS, "pairs": PAIRS}
    bench = Bench("core", {**SIZES, **sizes})
    with torch.inference_mode():
        compare(bench, "dit_forward", dit_forward(preset), DIT_GOAL, useful_flops(preset))
        compare(bench, "vae_decode", vae_decode(preset), VAE_GOAL)
    core_gpu.measure(bench)
    return bench.finish()


def compare(bench: Bench, name: str, run: Run, goal: float, useful: int | None = None) -> None:
    """Note ``run`` against its bare work."""
    run()
    calls = record(run)
    if useful is not None:
        flops = sum(call.flops for call in calls)
        bench.figure(f"{name}_bare_over_useful_flops", flops / useful, "x", goal=USEFUL_GOAL)
    bare = Replay(calls)
    bare()
    pairs = [(_seconds(run), _seconds(bare)) for _ in range(PAIRS)]
    bench.figure(f"{name}_bare", [alone for _, alone in pairs], "s")
    bench.figure(name, [whole for whole, _ in pairs], "s")
    bench.figure(f"{name}_over_bare", [whole / alone for whole, alone in pairs], "x", goal=goal)


def dit_forward(preset: Preset) -> Run:
    """One step of one branch as ``denoise`` makes it: latents in, velocity out."""
    model = build_model(preset, "cpu", torch.float32)
    for weight in model.parameters():
        weight.normal_(0, weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.1)
    denoiser, config = GameCraftDenoiser(preset, model, Solo()), preset.dit
    stream = denoiser.stream(LATENTS, HISTORY)
    noise = np.random.default_rng(0)
    text = TextStates(
        noise.standard_normal((TEXT, config.text_states_dim), np.float32),
        noise.standard_normal(config.text_states_dim_2, np.float32),
    )
    timestep, (frames, *sides) = 700.0, LATENTS
    camera = torch.randn(stream.shard.total * (frames - HISTORY) // frames, config.hidden_size)
    branch = denoiser.branch(text, camera, stream, (timestep,))
    latents = torch.randn(config.in_channels, frames - HISTORY, *sides)
    past = torch.randn(config.in_channels, HISTORY, *sides)
    tokens_at = tokens_after(model, past, torch.zeros_like(latents), stream, config.patch_size)
    return lambda: denoiser.velocity(tokens_at(latents), branch, timestep, stream)


def useful_flops(preset: Preset) -> int:
    """What a forward has to compute, from the sizes alone: real text only, new latents only where no more is read."""
    config = preset.dit
    t, h, w = (size // patch for size, patch in zip(LATENTS, config.patch_size, strict=True))
    new, joint = (t - HISTORY) * h * w, t * h * w + TEXT
    hidden, mlp = config.hidden_size, int(config.hidden_size * config.mlp_width_ratio)
    values = config.in_channels * math.prod(config.patch_size)
    attention = 2 * joint * joint * hidden
    double = joint * hidden * (4 * hidden + 2 * mlp) + attention
    single = joint * hidden * (4 * hidden + 2 * mlp) + attention
    last = 2 * joint * hidden * hidden + new * hidden * (2 * hidden + 2 * mlp) + 2 * new * joint * hidden
    ends = 2 * new * values * hidden
    blocks = config.depth_double_blocks * double + (config.depth_single_blocks - 1) * single
    return 2 * (blocks + last + ends)


def vae_decode(preset: Preset) -> Run:
    """Latents to pixels, by the VAE as its codec lays it out."""
    vae = CausalVae(preset.vae)
    VaeCodec(preset, vae, "cpu")
    latents = torch.randn(1, preset.vae.latent_channels, *VAE_LATENTS)
    return lambda: vae.decode(latents)


def _seconds(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())

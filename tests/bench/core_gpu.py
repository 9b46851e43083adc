"""Figures at the real size on one GPU: blocks of the transformer in bfloat16, attention kernels, the VAE's decode.

Weights are random and one block of each kind stands for all: a step is the sum over the published depth. Each figure
is skipped where there is no GPU, and attention kernels where they do not run.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gamecraft_core.attention import flash
from gamecraft_core.attention.kernel import Kernel, pick_kernel, sdpa
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.preset import DitConfig, Preset
from gamecraft_core.dit.blocks import DoubleBlock, SingleBlock
from gamecraft_core.dit.rope import rope_table
from gamecraft_core.dit.stream import Stream
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.parallel.shard import Shard
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from jobs.config import load_preset
from tests.bench.harness import Bench

PRESET = "gamecraft-distill"
#: Token grid and history frames after an image, and in a continuation: 33,440 and 60,192 tokens.
LAYOUTS = (((10, 44, 76), 1), ((18, 44, 76), 9))
TEXT = 256
RUNS = 7
TILE_BATCHES = (1, 2, 3)
VAE_LATENTS = (9, 88, 152)

#: Dense bfloat16 peak, TFLOP/s, by a part of the device's name (vendors' data sheets).
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "H20": 148, "A100": 312, "L40S": 362, "4090": 165}

BACKENDS = {
    "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
}

Run = Callable[[], Any]


def measure(bench: Bench) -> None:
    """Note every figure, or that there is no GPU to measure it on."""
    if not torch.cuda.is_available():
        for grid, _ in LAYOUTS:
            bench.skip(f"dit_step_{_tokens(grid)}_tokens", "no GPU")
            bench.skip(f"attention_{_tokens(grid)}_tokens", "no GPU")
        bench.skip("vae_decode_704x1216", "no GPU")
        return
    preset = load_preset(PRESET)
    with torch.inference_mode(), torch.device("cuda"):
        for grid, history in LAYOUTS:
            blocks = RealBlocks(preset.dit, grid, history)
            for compiled in (False, True):
                step(bench, preset.dit, blocks, compiled=compiled)
            del blocks
            _free()
            attention(bench, preset.dit, _tokens(grid) + TEXT)
        vae(bench, preset)


class RealBlocks:
    """A double, a single and a last block with inputs of one layout."""

    def __init__(self, config: DitConfig, grid: tuple[int, int, int], history: int) -> None:
        tokens = _tokens(grid)
        self.tokens, self.new = tokens, tokens - history * grid[1] * grid[2]
        rope = rope_table(grid, config.rope_dim_list, config.rope_theta).to("cuda")
        self.stream = Stream(grid, Shard(tokens), rope, keep=history * grid[1] * grid[2])
        kernel = pick_kernel("auto", torch.device("cuda"), torch.bfloat16)
        self.attend = JointAttention(kernel, Solo())
        sizes = config.hidden_size, config.num_heads, config.mlp_width_ratio
        self.double, self.single = DoubleBlock(*sizes).bfloat16(), SingleBlock(*sizes).bfloat16()
        self.vectors = 0.1 * torch.randn(12, config.hidden_size, dtype=torch.bfloat16)
        self.img = torch.randn(tokens, config.hidden_size)
        self.txt = torch.randn(TEXT, config.hidden_size, dtype=torch.bfloat16)
        self.joint = torch.randn(tokens + TEXT, config.hidden_size)

    def runs(self) -> Iterator[tuple[str, Run]]:
        yield "double", lambda: self.double(self.img, self.txt, self.stream, self.vectors, self.attend)
        yield "single", lambda: self.single(self.joint, self.stream, self.vectors[:3], self.attend)
        yield "last", lambda: self.single.last(self.joint, self.stream, self.vectors[:3], self.attend)


def step(bench: Bench, config: DitConfig, blocks: RealBlocks, *, compiled: bool) -> None:
    """Milliseconds of all blocks of one forward, and what share of the device's peak they reach."""
    name = f"dit_step_{blocks.tokens}_tokens" + ("_compiled" if compiled else "")
    if compiled:
        blocks.double.compile()
        blocks.single.compile()
    depth = {"double": config.depth_double_blocks, "single": config.depth_single_blocks - 1, "last": 1}
    times = {kind: median(milliseconds(run)) for kind, run in blocks.runs()}
    total = sum(depth[kind] * time for kind, time in times.items())
    bench.figure(f"{name}_ms", total, "ms")
    peak = next((peak for part, peak in PEAKS.items() if part in torch.cuda.get_device_name()), None)
    if peak is None:
        bench.skip(f"{name}_share_of_peak", f"the peak of {torch.cuda.get_device_name()} is not known here")
        return
    bench.figure(f"{name}_share_of_peak", flops(config, blocks) / (total * 1e-3) / (peak * 1e12), "", better="higher")


def flops(config: DitConfig, blocks: RealBlocks) -> float:
    """Of all blocks of one forward: matmuls and attention over real rows."""
    joint, new, hidden = blocks.tokens + TEXT, blocks.new, config.hidden_size
    mlp = int(hidden * config.mlp_width_ratio)
    block = 2 * joint * hidden * (4 * hidden + 2 * mlp) + 4 * joint * joint * hidden
    last = 4 * joint * hidden * hidden + 2 * new * hidden * (2 * hidden + 2 * mlp) + 4 * new * joint * hidden
    return (config.depth_double_blocks + config.depth_single_blocks - 1) * block + last


def attention(bench: Bench, config: DitConfig, rows: int) -> None:
    """Milliseconds of one joint attention: SDPA's own backends against flash_attn."""
    q, k, v = torch.randn(3, config.num_heads, rows, config.head_dim, dtype=torch.bfloat16).transpose(1, 2)
    candidates: dict[str, tuple[Kernel, AbstractContextManager[Any]]] = {
        name: (sdpa, sdpa_kernel(backend)) for name, backend in BACKENDS.items()
    }
    if flash.available():
        candidates["flash_attn"] = flash.flash_attention, nullcontext()
    else:
        bench.skip(f"attention_{rows}_flash_attn", "flash_attn is not installed")
    for name, (kernel, chosen) in candidates.items():
        try:
            with chosen:
                bench.figure(f"attention_{rows}_{name}", milliseconds(partial(kernel, q, k, v)), "ms")
        except RuntimeError as error:
            bench.skip(f"attention_{rows}_{name}", str(error).splitlines()[0])


def vae(bench: Bench, preset: Preset) -> None:
    """Seconds and peak memory of a whole chunk's decode, by how many tiles run at once."""
    for batch in TILE_BATCHES:
        name = f"vae_decode_704x1216_batch_{batch}"
        runtime = preset.runtime.model_copy(update={"vae_tile_batch": batch})
        codec = VaeCodec(preset.model_copy(update={"runtime": runtime}), CausalVae(preset.vae), "cuda")
        latents = torch.randn(preset.vae.latent_channels, *VAE_LATENTS).cpu().numpy()
        torch.cuda.reset_peak_memory_stats()
        try:
            times = milliseconds(partial(codec.decode_float, latents), runs=3)
        except torch.OutOfMemoryError:
            bench.skip(name, "out of memory")
            continue
        finally:
            del codec
            _free()
        bench.figure(name, [time / 1000 for time in times], "s")
        bench.figure(f"{name}_peak", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def milliseconds(run: Run, runs: int = RUNS) -> list[float]:
    """Device times of ``runs`` calls after one that is not counted."""
    run()
    times = []
    for _ in range(runs):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began.record()
        run()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended))
    return times


def _tokens(grid: tuple[int, int, int]) -> int:
    return grid[0] * grid[1] * grid[2]


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()

"""Predicted memory against what CUDA's allocator saw; offload's bits and its overlap; a VAE tile in fp16."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from gamecraft_core.dit.offload import BlockFeed, offload
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.footprint.predict import chunk_peak, decode_role, denoise_activations, rank_weights
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.random_init import fill_random
from tests.gpu.sizes import random_model, real_preset
from tests.gpu.test_blocks import added

pytestmark = pytest.mark.gpu

#: Prediction over what was allocated: kernels' workspaces, cuBLAS's and cuDNN's, are not predicted.
LOW, HIGH = 0.7, 1.15


@pytest.mark.parametrize("continuing", [False, True])
def test_a_chunk_needs_what_was_predicted(cuda: torch.device, continuing: bool) -> None:
    preset = real_preset()
    model = random_model(preset, cuda)
    weights = torch.cuda.memory_allocated(cuda)
    assert weights == pytest.approx(rank_weights(preset), rel=0.01)
    torch.cuda.reset_peak_memory_stats(cuda)
    chunk_peak(GameCraftDenoiser(preset, model, Solo()), preset, continuing=continuing)
    actual = torch.cuda.max_memory_allocated(cuda) - weights
    ratio = denoise_activations(preset, continuing=continuing) / actual
    print(f"predicted / allocated: {ratio:.3f} of {actual / 2**30:.2f} GiB")
    assert LOW < ratio < HIGH


def test_a_decode_in_fp16_needs_what_was_predicted(cuda: torch.device) -> None:
    preset = real_preset()
    vae = CausalVae(preset.vae)
    fill_random(vae, 0)
    codec = VaeCodec(preset, vae, cuda)
    shape = (16, 9, preset.video.height // 8, preset.video.width // 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(2)).numpy()
    held = torch.cuda.memory_allocated(cuda)
    torch.cuda.reset_peak_memory_stats(cuda)
    frames = codec.decode(latents)
    assert frames.shape == (33, preset.video.height, preset.video.width, 3)
    actual = torch.cuda.max_memory_allocated(cuda) - held
    ratio = decode_role(preset).activations / actual
    print(f"predicted / allocated: {ratio:.3f} of {actual / 2**30:.2f} GiB")
    assert LOW < ratio < HIGH


@torch.inference_mode()
def test_a_tile_in_fp16_is_near_float32(cuda: torch.device) -> None:
    vae = CausalVae(real_preset().vae)
    fill_random(vae, 0, cuda)
    tile = torch.randn(1, 16, 9, 32, 32, device=cuda, generator=torch.Generator(cuda).manual_seed(2))
    exact = vae.decode(tile)
    half = vae.half().decode(tile.half()).float()
    assert torch.isfinite(half).all()
    assert float((half - exact).abs().mean() / exact.abs().mean()) < 0.02


def test_offload_is_bit_identical_and_small(cuda: torch.device) -> None:
    preset = real_preset(double=2, single=4)
    resident = random_model(preset, cuda)
    weights = {name: value.cpu() for name, value in resident.state_dict().items()}
    expected = added(resident, cuda)
    del resident
    torch.cuda.empty_cache()
    model = random_model(preset, torch.device("cpu"))
    model.load_state_dict(weights)
    offload(model, "blocks", cuda)
    assert torch.cuda.memory_allocated(cuda) == pytest.approx(rank_weights(preset, "blocks"), rel=0.02)
    for _ in range(2):
        assert torch.equal(added(model, cuda), expected)


@torch.inference_mode()
def test_copies_run_beside_compute(cuda: torch.device) -> None:
    """A walk takes less than its copies and its products one after the other."""
    blocks = [torch.nn.Linear(8192, 8192, bias=False, dtype=torch.bfloat16).requires_grad_(False) for _ in range(12)]
    feed = BlockFeed({block: list(block.parameters()) for block in blocks}, cuda)
    rows = torch.randn(16384, 8192, device=cuda, dtype=torch.bfloat16)
    resident = torch.randn(8192, 8192, device=cuda, dtype=torch.bfloat16)

    def copy() -> None:
        for _ in feed.walk(blocks):
            pass

    def compute() -> None:
        for _ in blocks:
            torch.nn.functional.linear(rows, resident)

    def both() -> None:
        for block in feed.walk(blocks):
            block(rows)

    for _ in range(2):
        copying, computing, together = seconds(copy), seconds(compute), seconds(both)
    print(f"copies {copying:.3f} s, products {computing:.3f} s, together {together:.3f} s")
    assert together < 0.85 * (copying + computing)


def seconds(work: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started

"""NCCL groups of two GPUs and more give what one GPU gives: own Ulysses, the guidance split, xfuser's ring."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from actors.models import denoiser
from gamecraft_core.attention import flash
from gamecraft_core.parallel.collective import Distributed, Solo
from gamecraft_core.parallel.layout import SOLO, Layout
from tests.fakes.tiny_model import image_history, order, text, tiny_preset

pytestmark = pytest.mark.gpu

#: float32 with TF32 off; the ring runs in bf16, because flash_attn does.
FLOAT_ATOL, RING_ATOL = 1e-4, 0.15


def chunk(layout: Layout, rank: int, dtype: str) -> Tensor:
    """A guided chunk of three steps on ``rank``'s GPU. Eight heads of 8: degrees up to 8 divide them."""
    torch.backends.cuda.matmul.allow_tf32 = False
    preset = tiny_preset(hidden_size=64, num_heads=8)
    preset = preset.model_copy(update={"runtime": preset.runtime.model_copy(update={"dtype": dtype})})
    collective = Solo() if layout is SOLO else Distributed()
    runner = denoiser(preset, torch.device("cuda", rank), collective, layout)
    return torch.from_numpy(runner.denoise(order(), text(), image_history()))


def on_a_rank(rank: int, layout: Layout, dtype: str, port: int, folder: str) -> None:
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=layout.world)
    try:
        torch.save(chunk(layout, rank, dtype), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def by_rank(layout: Layout, dtype: str, folder: Path) -> list[Tensor]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (layout, dtype, port, str(folder))
    mp.spawn(on_a_rank, arguments, nprocs=layout.world)  # type: ignore[attr-defined, no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(layout.world)]


@pytest.mark.parametrize("split", [False, True])
def test_a_group_gives_what_one_gpu_gives(two_gpus: int, split: bool, tmp_path: Path) -> None:
    world = min(two_gpus - two_gpus % 2, 8)
    results = by_rank(Layout(world, split_guidance=split), "float32", tmp_path)
    torch.testing.assert_close(results[0], chunk(SOLO, 0, "float32"), atol=FLOAT_ATOL, rtol=0)
    for result in results[1:]:
        assert torch.equal(result, results[0])


def test_a_ring_gives_what_one_gpu_gives(two_gpus: int, tmp_path: Path) -> None:
    if importlib.util.find_spec("xfuser") is None or not flash.available():
        pytest.skip("xfuser or flash_attn is not installed")
    world = 4 if two_gpus >= 4 else 2
    results = by_rank(Layout(world, ring_degree=2), "bfloat16", tmp_path)
    torch.testing.assert_close(results[0], chunk(SOLO, 0, "bfloat16"), atol=RING_ATOL, rtol=0)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=RING_ATOL, rtol=0)

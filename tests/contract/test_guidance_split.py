"""A group cut into two halves, a guidance branch each, gives what one rank gives; gloo groups of 2 and 4 ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.models import Denoiser, denoiser
from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.preset import Preset
from gamecraft_core.families.guidance_split import GuidanceSplit
from gamecraft_core.parallel.collective import Collective, Distributed, Solo
from gamecraft_core.parallel.layout import SOLO, Layout
from tests.fakes.gloo import run_ranks
from tests.fakes.tiny_framepack import pack_preset, pack_start, section_order
from tests.fakes.tiny_model import image_history, order, text, tiny_preset

WORLDS = (2, 4)
FORWARD_ATOL = 1e-5
CHUNK_ATOL = 1e-4


def build(collective: Collective, layout: Layout, preset: Preset | None = None) -> Denoiser:
    return denoiser(preset or tiny_preset(), torch.device("cpu"), collective, layout)


def chunks(runner: Denoiser) -> dict[str, Tensor]:
    """Guided and unguided: one step, which is one forward a branch; two chunks of three, the second a continuation."""
    results = {}
    for name, guidance in (("guided", 2.0), ("unguided", 1.0)):
        single = runner.denoise(order(steps=1, guidance=guidance), text(), image_history())
        first = runner.denoise(order(guidance=guidance), text(), image_history())
        second = runner.denoise(order(1, "left_rot", guidance=guidance), text(), first)
        results[f"{name} forward"] = torch.from_numpy(single)
        results[f"{name} chunks"] = torch.stack([torch.from_numpy(first), torch.from_numpy(second)])
    return results


def sections(runner: Denoiser) -> dict[str, Tensor]:
    """Two of FramePack's, the second after the first; each branch has a TeaCache of its own."""
    made: list[FloatArray] = []
    for index in range(2):
        settings = section_order(index, guidance=2.0, steps=6, tea_cache=9.0)
        made.append(runner.denoise(settings, text(), made[-1] if made else None, pack_start()))
    return {"sections": torch.from_numpy(np.stack(made))}


def on_a_rank(rank: int, world: int) -> dict[str, Tensor]:
    runner = build(Distributed(), Layout(world, split_guidance=True))
    assert isinstance(runner, GuidanceSplit)
    return chunks(runner) | sections(build(Distributed(), Layout(world, split_guidance=True), pack_preset()))


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    return chunks(build(Solo(), SOLO)) | sections(build(Solo(), SOLO, pack_preset()))


@pytest.mark.parametrize("world", WORLDS)
def test_halves_give_what_one_rank_gives(world: int, alone: dict[str, Tensor], tmp_path: Path) -> None:
    by_rank = run_ranks(world, on_a_rank, tmp_path, world)
    for name, expected in alone.items():
        atol = FORWARD_ATOL if name.endswith("forward") else CHUNK_ATOL
        torch.testing.assert_close(by_rank[0][name], expected, atol=atol, rtol=0)
        for result in by_rank[1:]:
            assert torch.equal(result[name], by_rank[0][name])

"""The trunk's parts that goldens do not reach."""

from __future__ import annotations

import pytest
import torch

from gamecraft_core.attention.kernel import sdpa
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.dit.embed import PatchEmbed, patchify, unpatchify
from gamecraft_core.dit.layers import Linear
from gamecraft_core.dit.memo import StepMemo
from gamecraft_core.dit.rope import RopeTables
from gamecraft_core.dit.stream import Prompt, Stream
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.parallel.shard import Shard
from tests.fakes.tiny_model import tiny_model, tiny_preset


@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 2, 4)])
def test_patches_go_there_and_back(patch: tuple[int, int, int]) -> None:
    video = torch.randn(5, 4, 6, 8)
    t, h, w = patch
    tokens = patchify(video, patch)
    assert tokens.shape == ((4 // t) * (6 // h) * (8 // w), 5 * t * h * w)
    assert torch.equal(unpatchify(tokens, (4 // t, 6 // h, 8 // w), patch), video)


def test_patch_embedding_is_its_convolution() -> None:
    embed = PatchEmbed(3, 10, (1, 2, 2)).requires_grad_(False)
    video = torch.randn(3, 2, 4, 6)
    by_convolution = embed.proj(video[None])[0].flatten(1).T
    torch.testing.assert_close(embed(patchify(video, (1, 2, 2))), by_convolution)


def test_a_part_of_a_linear() -> None:
    linear, x = Linear(4, 6).requires_grad_(False), torch.randn(3, 4)
    torch.testing.assert_close(torch.cat([linear.part(x, 0, 2), linear.part(x, 2)], dim=-1), linear(x))


def test_rope_tables_are_made_once_a_layout() -> None:
    tables = RopeTables((2, 2, 4), 256.0, torch.device("cpu"))
    first = tables.rows((2, 3, 5), Shard(30))
    assert tables.rows((2, 3, 5), Shard(30)) is first
    halves = [tables.rows((2, 3, 5), Shard(30, rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), first)
    for size in range(1, 12):
        tables.rows((size, 1, 1), Shard(size))
    again = tables.rows((2, 3, 5), Shard(30))
    assert again is not first
    assert torch.equal(again, first)


def test_an_empty_step_cache_is_a_mistake_of_the_caller() -> None:
    model = tiny_model(tiny_preset())
    stream = Stream((1, 1, 1), Shard(1), torch.ones(1, 1, 4, dtype=torch.complex64))
    prompt = Prompt(torch.zeros(2, 20), torch.zeros(12))
    with pytest.raises(ValueError, match="empty"):
        model.reuse(StepMemo(), stream, prompt, torch.tensor(5.0), JointAttention(sdpa, Solo()))

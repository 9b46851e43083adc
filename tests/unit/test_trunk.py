"""The trunk's parts that goldens do not reach."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from gamecraft_core.attention.kernel import sdpa
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.messages import TextStates
from gamecraft_core.dit.condition import Condition, ConditionTable, ConditionTables, table_key
from gamecraft_core.dit.embed import PatchEmbed, patchify, unpatchify
from gamecraft_core.dit.heads import heads_of, split_heads
from gamecraft_core.dit.layers import NORM_EPS, Linear, RMSNorm, modulated_norm
from gamecraft_core.dit.memo import StepMemo
from gamecraft_core.dit.rope import Cells, RopeTables, rope_table, rotate_
from gamecraft_core.dit.stream import Prompt, Stream
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.parallel.shard import Shard
from tests.fakes.tiny_model import text, tiny_model, tiny_preset


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
    blank = torch.cat([torch.zeros_like(video[:2]), video[2:]])
    parts = embed(patchify(blank, (1, 2, 2))) + embed.change(patchify(video[:2], (1, 2, 2)))
    torch.testing.assert_close(parts, by_convolution)


def test_a_part_of_a_linear() -> None:
    linear, x = Linear(4, 6).requires_grad_(False), torch.randn(3, 4)
    torch.testing.assert_close(torch.cat([linear.part(x, 0, 2), linear.part(x, 2)], dim=-1), linear(x))


def test_rope_tables_are_made_once_a_layout() -> None:
    cells = (Cells((0, 1), 3, 5),)
    tables = RopeTables((2, 2, 4), 256.0, torch.device("cpu"))
    first = tables.rows(cells, Shard(30))
    assert tables.rows(cells, Shard(30)) is first
    halves = [tables.rows(cells, Shard(30, rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), first)
    for size in range(1, 12):
        tables.rows((Cells(tuple(range(size)), 1, 1),), Shard(size))
    again = tables.rows(cells, Shard(30))
    assert again is not first
    assert torch.equal(again, first)


def test_heads_are_normed_then_rotated() -> None:
    rows, heads, dim, turned = 7, 3, 8, 5
    features = torch.randn(rows, 3 * heads * dim, generator=torch.Generator().manual_seed(0))
    norms = [RMSNorm(dim).requires_grad_(False) for _ in range(2)]
    for norm in norms:
        norm.weight.normal_(1, 0.3, generator=torch.Generator().manual_seed(1))
    table = rope_table((turned, 1, 1), (4, 2, 2), 256.0)
    q, k, v = heads_of(features, 3, heads, norms, table)
    for made, raw, norm in zip((q, k), split_heads(features, 3, heads), norms, strict=False):
        expected = F.rms_norm(raw, (dim,), norm.weight, NORM_EPS)
        rotate_(expected, table)
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
    assert torch.equal(v, split_heads(features, 3, heads)[2])
    assert v.transpose(0, 1).is_contiguous(), "a head's rows lie together"


def test_a_rank_may_hold_none_of_the_rows() -> None:
    norm, table = RMSNorm(8).requires_grad_(False), rope_table((5, 1, 1), (4, 2, 2), 256.0)
    (q,) = heads_of(torch.zeros(0, 16), 1, 2, (norm,), table[5:])
    assert q.shape == (0, 2, 8)
    assert Linear(16, 4).requires_grad_(False).gelu(torch.zeros(0, 16)).shape == (0, 4)


def test_heads_of_half_precision_round_once() -> None:
    features = torch.randn(5, 3 * 2 * 8).bfloat16()
    norm, table = RMSNorm(8).requires_grad_(False), rope_table((5, 1, 1), (4, 2, 2), 256.0)
    made = heads_of(features, 3, 2, (norm, norm), table)
    exact = heads_of(features.float(), 3, 2, (norm, norm), table)
    assert torch.equal(made, exact.bfloat16())


@pytest.mark.parametrize("start", [0, 4])
def test_gelu_in_the_epilogue_is_gelu(start: int) -> None:
    linear, x = Linear(6, 10).requires_grad_(False), torch.randn(9, 6)
    torch.testing.assert_close(
        linear.gelu(x, start), F.gelu(linear.part(x, start), approximate="tanh"), atol=1e-6, rtol=0
    )


def test_a_modulated_norm_is_its_formula() -> None:
    x, shift, scale = torch.randn(4, 8), torch.randn(8), torch.randn(8)
    expected = F.layer_norm(x, (8,), eps=NORM_EPS) * (1 + scale) + shift
    torch.testing.assert_close(modulated_norm(x, shift, scale), expected, atol=1e-6, rtol=0)


def prompt(seed: int = 0) -> TextStates:
    return text(seed).positive


def condition(timestep: float) -> Condition:
    value = torch.full((2, 8), timestep)
    return Condition(value, (value,), (value,), value)


def test_a_table_holds_what_single_steps_compute() -> None:
    model, states = tiny_model(tiny_preset()), prompt()
    given = Prompt(torch.from_numpy(states.states), torch.from_numpy(states.pooled))
    timesteps = [1000.0, 714.25, 3.5]
    with torch.inference_mode():
        table = model.conditions(given, timesteps, sdpa)
        for row, timestep in zip(table, timesteps, strict=True):
            (single,) = model.conditions(given, [timestep], sdpa)
            for made, expected in ((row.text, single.text), (row.final, single.final)):
                torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
            for made, expected in zip((*row.double, *row.single), (*single.double, *single.single), strict=True):
                torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_tables_are_keyed_by_content() -> None:
    steps, states = (9.0, 4.0), prompt()
    same = TextStates(states.states.copy(), states.pooled.copy())
    assert table_key(states, steps) == table_key(same, steps)
    others = [table_key(states, (9.0, 4.5)), table_key(states, (9.0,)), table_key(prompt(1), steps)]
    for name in ("states", "pooled"):
        array = getattr(states, name).copy()
        array.flat[-1] += 1e-3
        others.append(table_key(dataclasses.replace(states, **{name: array}), steps))
    others.append(table_key(TextStates(states.states.reshape(-1, 10), states.pooled), steps))
    others += [table_key(states, steps, guidance) for guidance in (6000.0, 6016.0)]
    assert len({table_key(states, steps), *others}) == 1 + len(others)


def test_tables_used_last_are_kept_within_bounds() -> None:
    one = condition(0.0).nbytes
    tables, made = ConditionTables(kept_bytes=2 * one), ""
    for name in "abacab":

        def make(name: str = name) -> ConditionTable:
            nonlocal made
            made += name
            return {1.0: condition(1.0)}

        tables.get((name, (1.0,), None), make)
    assert made == "abcb"
    single = ConditionTables(kept_bytes=0)
    key = ("large", (1.0,), None)
    assert single.get(key, lambda: {1.0: condition(1.0)}) is single.get(key, dict), "the newest is kept at any size"


def test_an_empty_step_cache_is_a_mistake_of_the_caller() -> None:
    model = tiny_model(tiny_preset())
    stream = Stream((1, 1, 1), Shard(1), torch.ones(1, 1, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match="empty"):
        model.reuse(StepMemo(), stream, condition(5.0), JointAttention(sdpa, Solo()))

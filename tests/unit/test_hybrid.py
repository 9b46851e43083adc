"""Ulysses x ring: what is handed to xfuser and taken back, what goes round it, and what is refused by name.

xfuser itself runs on GPUs only (tests/gpu); here exact attention over gathered rows stands in for it.
"""

from __future__ import annotations

import sys
import threading
from enum import Enum
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from gamecraft_core.attention.flash import flash_attention
from gamecraft_core.attention.hybrid import HybridAttention, check_hybrid, hybrid_attention
from gamecraft_core.attention.kernel import sdpa
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.errors import UsageError
from gamecraft_core.parallel.collective import Collective, Solo
from gamecraft_core.parallel.layout import Layout
from gamecraft_core.parallel.shard import Shard
from tests.unit.test_attention import ThreadRank, ThreadRanks, random

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
HEADS, DIM, TEXT = 4, 8, 5


class Gathering:
    """Stands in for xfuser's layer on one rank: the same arguments, exact attention over everyone's rows."""

    def __init__(self, collective: Collective) -> None:
        self.collective = collective
        self.calls = 0

    def __call__(self, module: None, q: Tensor, k: Tensor, v: Tensor, **joint: Any) -> Tensor:
        assert joint.pop("joint_strategy") == "rear"
        assert q.shape == k.shape == v.shape
        self.calls += 1
        whole = [self.collective.all_gather(rows[0]) for rows in (k, v)]
        text = [joint.pop(f"joint_tensor_{name}")[0] for name in ("query", "key", "value")]
        assert not joint
        keys, values = (torch.cat([rows, words]) for rows, words in zip(whole, text[1:], strict=True))
        return sdpa(torch.cat([q[0], text[0]]), keys, values)[None]


def on_every_rank(world: int, total: int, keep: int | None) -> tuple[list[Tensor], list[int]]:
    """The hybrid's answer on each rank, and how often each used xfuser's layer."""
    video, words = random(3, total, HEADS, DIM), random(3, TEXT, HEADS, DIM, seed=1)
    shared = ThreadRanks(world)
    answers: dict[int, Tensor] = {}
    calls: dict[int, int] = {}

    def run(rank: int) -> None:
        collective = ThreadRank(shared, rank)
        layer = Gathering(collective)
        shard = Shard(total, rank, world)
        q, k, v = (torch.cat([shard.take(part), word]) for part, word in zip(video, words, strict=True))
        if keep is not None:
            q = q[shard.local_index(keep) : shard.local]
        answers[rank] = HybridAttention(sdpa, collective, layer)(q, k, v, shard, keep)
        calls[rank] = layer.calls

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return [answers[rank] for rank in range(world)], [calls[rank] for rank in range(world)]


@pytest.mark.parametrize("keep", [None, 0, 5])
@pytest.mark.parametrize(("world", "total", "by_xfuser"), [(2, 12, True), (4, 12, True), (4, 13, False)])
def test_hybrid_is_joint_attention(world: int, total: int, by_xfuser: bool, keep: int | None) -> None:
    q, k, v = torch.cat([random(3, total, HEADS, DIM), random(3, TEXT, HEADS, DIM, seed=1)], dim=1)
    alone = JointAttention(sdpa, Solo())(q, k, v, Shard(total))
    answers, calls = on_every_rank(world, total, keep)
    assert calls == [int(by_xfuser)] * world
    local = Shard(total, 0, world).local
    video = torch.cat([answer if keep is not None else answer[:local] for answer in answers])
    torch.testing.assert_close(video[: total - (keep or 0)], alone[keep or 0 : total], atol=1e-6, rtol=0)
    if keep is None:
        for answer in answers:
            torch.testing.assert_close(answer[local:], alone[total:], atol=1e-6, rtol=0)


def test_on_a_cpu_the_ring_is_refused() -> None:
    with pytest.raises(UsageError, match="its ring on cpu is silently wrong") as caught:
        hybrid_attention(sdpa, Solo(), Layout(4, ring_degree=2), HEADS, CPU)
    assert caught.value.field == "ring_degree"
    assert "own Ulysses" in caught.value.remedy


def test_heads_and_kernel_are_checked() -> None:
    with pytest.raises(UsageError, match="6 heads do not divide by the Ulysses degree 4"):
        check_hybrid(flash_attention, Layout(8, ring_degree=2), 6, CUDA)
    with pytest.raises(UsageError, match="log-sum-exp"):
        check_hybrid(sdpa, Layout(8, ring_degree=2), 24, CUDA)
    check_hybrid(flash_attention, Layout(8, ring_degree=2), 24, CUDA)


def test_without_xfuser_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xfuser", None)
    with pytest.raises(UsageError, match="xfuser does not import") as caught:
        hybrid_attention(flash_attention, Solo(), Layout(2, ring_degree=2), HEADS, CUDA)
    assert "ring_degree to 1" in caught.value.remedy


class AttnType(Enum):
    FA = "fa"


def test_xfuser_is_told_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    class Layer:
        def __init__(self, *, attn_type: AttnType) -> None:
            told["attn_type"] = attn_type

        def __call__(self, module: None, q: Tensor, *rest: Tensor, **joint: Any) -> Tensor:
            return torch.cat([q, joint["joint_tensor_query"]], dim=1)

    distributed, layers = ModuleType("xfuser.core.distributed"), ModuleType("xfuser.core.long_ctx_attention")
    vars(distributed).update(
        init_distributed_environment=lambda **given: told.update(environment=given),
        initialize_model_parallel=lambda **given: told.update(parallel=given),
    )
    vars(layers).update(AttnType=AttnType, xFuserLongContextAttention=Layer)
    for module in (ModuleType("xfuser"), ModuleType("xfuser.core"), distributed, layers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(dist, "get_rank", lambda: 5)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")

    layout = Layout(8, ring_degree=2, split_guidance=True)
    attend = hybrid_attention(flash_attention, Solo(), layout, 24, CUDA)
    assert told["attn_type"] is AttnType.FA
    assert told["environment"] == {"rank": 5, "world_size": 8, "local_rank": 0, "backend": "nccl"}
    assert told["parallel"] == {
        "ulysses_degree": 2,
        "ring_degree": 2,
        "classifier_free_guidance_degree": 2,
        "backend": "nccl",
    }
    q = random(4 + TEXT, HEADS, DIM)
    assert torch.equal(attend(q, q, q, Shard(4)), q.flatten(1))


@pytest.mark.parametrize(
    ("layout", "sequence", "ulysses"),
    [((8, 1, False), 8, 8), ((8, 2, False), 8, 4), ((8, 1, True), 4, 4), ((8, 2, True), 4, 2), ((2, 1, True), 1, 1)],
)
def test_a_layout_divides_its_ranks(layout: tuple[int, int, bool], sequence: int, ulysses: int) -> None:
    assert (Layout(*layout).sequence_degree, Layout(*layout).ulysses_degree) == (sequence, ulysses)


def test_a_layout_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="split_guidance needs an even number of ranks, not 3"):
        Layout(3, split_guidance=True)
    with pytest.raises(ValueError, match="ring_degree 4 does not divide the 2 ranks of a sequence"):
        Layout(4, ring_degree=4, split_guidance=True)

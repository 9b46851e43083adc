"""Attention kernels, shards, and the exchange of a group whose ranks live in one process."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import Tensor

from gamecraft_core.attention import flash
from gamecraft_core.attention.kernel import pick_kernel, sdpa
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.errors import UsageError
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.parallel.shard import Shard

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TEXT, DIM = 5, 8


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("nhd,mhd->hnm", q, k).div(math.sqrt(q.shape[-1])).softmax(-1)
    return torch.einsum("hnm,mhd->nhd", weights, v)


def test_sdpa_is_softmax_attention() -> None:
    q, k, v = random(7, 3, DIM), random(11, 3, DIM, seed=1), random(11, 3, DIM, seed=2)
    torch.testing.assert_close(sdpa(q, k, v), plain(q, k, v))


def test_auto_falls_back_to_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "available", lambda: True)
    assert pick_kernel("auto", CPU, torch.float32) is sdpa
    assert pick_kernel("auto", CUDA, torch.float32) is sdpa
    assert pick_kernel("auto", CUDA, torch.bfloat16) is flash.flash_attention
    assert pick_kernel("sdpa", CUDA, torch.bfloat16) is sdpa
    monkeypatch.setattr(flash, "available", lambda: False)
    assert pick_kernel("auto", CUDA, torch.bfloat16) is sdpa


def test_flash_asked_for_and_absent_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "available", lambda: False)
    with pytest.raises(UsageError, match=r"runtime\.attention.*install"):
        pick_kernel("flash", CUDA, torch.bfloat16)
    monkeypatch.setattr(flash, "available", lambda: True)
    with pytest.raises(UsageError, match=r"does not run in float32 on cuda"):
        pick_kernel("flash", CUDA, torch.float32)


@pytest.mark.parametrize(("total", "world"), [(12, 1), (12, 4), (13, 4), (5, 4), (1, 3)])
def test_shards_cover_every_row_once(total: int, world: int) -> None:
    rows = random(total, 2)
    parts = [Shard(total, rank, world).take(rows) for rank in range(world)]
    assert {len(part) for part in parts} == {Shard(total, 0, world).local}
    joined = torch.cat(parts)
    torch.testing.assert_close(joined[:total], rows, atol=0, rtol=0)
    assert not joined[total:].any()


def test_local_index_is_clamped() -> None:
    assert [Shard(13, rank, 4).local_index(6) for rank in range(4)] == [4, 2, 0, 0]


class ThreadRanks:
    """A collective among threads of this process: ranks meet at a barrier and read each other's tensors."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.barrier = threading.Barrier(world)
        self.posted: list[Tensor | None] = [None] * world
        self.exchanges = 0


class ThreadRank:
    """One of them."""

    def __init__(self, shared: ThreadRanks, rank: int) -> None:
        self.shared, self.rank, self.world = shared, rank, shared.world

    def _exchange(self, value: Tensor) -> list[Tensor]:
        self.shared.posted[self.rank] = value
        self.shared.barrier.wait(timeout=30)
        everyone = [tensor for tensor in self.shared.posted if tensor is not None]
        self.shared.barrier.wait(timeout=30)
        self.shared.exchanges += self.rank == 0
        return everyone

    def all_to_all(self, parts: Tensor) -> Tensor:
        return torch.stack([theirs[self.rank] for theirs in self._exchange(parts)])

    def all_gather(self, rows: Tensor) -> Tensor:
        return torch.cat(self._exchange(rows))


@pytest.mark.parametrize("keep", [None, 0, 5, 10])
@pytest.mark.parametrize(("world", "heads", "total"), [(2, 4, 12), (3, 4, 13), (4, 6, 11), (8, 3, 11)])
def test_ulysses_is_joint_attention(world: int, heads: int, total: int, keep: int | None) -> None:
    video, text = random(3, total, heads, DIM), random(3, TEXT, heads, DIM, seed=1)
    q, k, v = torch.cat([video, text], dim=1)
    alone = JointAttention(sdpa, Solo())(q if keep is None else q[keep:total], k, v, Shard(total), keep)
    shared = ThreadRanks(world)
    results: dict[int, Tensor] = {}

    def run(rank: int) -> None:
        shard = Shard(total, rank, world)
        q, k, v = (torch.cat([shard.take(part), words]) for part, words in zip(video, text, strict=True))
        asked = q if keep is None else q[shard.local_index(keep) : shard.local]
        results[rank] = JointAttention(sdpa, ThreadRank(shared, rank))(asked, k, v, shard, keep)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert shared.exchanges == 2, "q, k and v travel together, and back"
    local = Shard(total, 0, world).local
    if keep is None:
        rows = torch.cat([results[rank][:local] for rank in range(world)])[:total]
        torch.testing.assert_close(rows, alone[:total], atol=1e-6, rtol=0)
        for rank in range(world):
            torch.testing.assert_close(results[rank][local:], alone[total:], atol=1e-6, rtol=0)
    else:
        rows = torch.cat([results[rank] for rank in range(world)])[: total - keep]
        torch.testing.assert_close(rows, alone, atol=1e-6, rtol=0)

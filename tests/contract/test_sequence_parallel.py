"""Real gloo groups of 2, 3 and 4 ranks give what one rank gives, forwards and whole sessions."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from gamecraft_core.families.gamecraft import GameCraftDenoiser, with_history
from gamecraft_core.parallel.collective import Collective, Distributed, Solo
from tests.fakes.gloo import run_ranks
from tests.fakes.tiny_model import LATENT, image_history, order, text, tiny_model, tiny_preset

WORLDS = (2, 3, 4)
FORWARD_ATOL = 1e-5
SESSION_ATOL = 1e-4
HISTORY = 1


def forward(collective: Collective, *, keep: bool) -> Tensor:
    """One model call; 18 tokens and 6 heads do not divide among 4 ranks."""
    preset = tiny_preset()
    runner = GameCraftDenoiser(preset, tiny_model(preset), collective)
    past = torch.from_numpy(image_history())
    new = torch.randn(16, 5, *LATENT, generator=torch.Generator().manual_seed(1))
    stream = runner.stream((HISTORY + 5, *LATENT), HISTORY if keep else None)
    with torch.inference_mode():
        conditional = runner.branches(order(), text(), stream)[-1]
        return runner.predict(with_history(past, new), conditional, 700.0, stream)


def session(collective: Collective) -> Tensor:
    """Three guided chunks, each continuing its predecessor's latents as this group computed them."""
    preset = tiny_preset()
    runner = GameCraftDenoiser(preset, tiny_model(preset), collective)
    history, chunks = image_history(), []
    for index, action in enumerate(("w", "left_rot", "d")):
        history = runner.denoise(order(index, action), text(), history)
        chunks.append(torch.from_numpy(history))
    return torch.stack(chunks)


def every_degree(rank: int) -> dict[str, Tensor]:
    """What this rank computed in every group it is in."""
    results = {}
    for world in WORLDS:
        group = dist.new_group(list(range(world)))
        if rank < world:
            collective = Distributed(group)
            results[f"all {world}"] = forward(collective, keep=False)
            results[f"kept {world}"] = forward(collective, keep=True)
            results[f"session {world}"] = session(collective)
    return results


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    return run_ranks(max(WORLDS), every_degree, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    return {"all": forward(Solo(), keep=False), "session": session(Solo())}


@pytest.mark.parametrize("world", WORLDS)
def test_a_forward_is_that_of_one_rank(by_rank: list[dict[str, Tensor]], alone: dict[str, Tensor], world: int) -> None:
    for rank in range(world):
        torch.testing.assert_close(by_rank[rank][f"all {world}"], alone["all"], atol=FORWARD_ATOL, rtol=0)
        kept = by_rank[rank][f"kept {world}"]
        torch.testing.assert_close(kept[:, HISTORY:], alone["all"][:, HISTORY:], atol=FORWARD_ATOL, rtol=0)
        assert not kept[:, :HISTORY].any()


@pytest.mark.parametrize("world", WORLDS)
def test_a_session_is_that_of_one_rank(by_rank: list[dict[str, Tensor]], alone: dict[str, Tensor], world: int) -> None:
    torch.testing.assert_close(by_rank[0][f"session {world}"], alone["session"], atol=SESSION_ATOL, rtol=0)
    for rank in range(1, world):
        assert torch.equal(by_rank[rank][f"session {world}"], by_rank[0][f"session {world}"])

"""Real gloo groups of 2, 3, 4 and 8 ranks give what one rank gives, forwards and whole sessions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.spec import Layout
from gamecraft_core.families.framepack import FramePackDenoiser
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.families.history import with_history
from gamecraft_core.families.hunyuan_video import HunyuanVideoDenoiser
from gamecraft_core.families.hunyuan_video_i2v import ImageToVideoDenoiser
from gamecraft_core.parallel.collective import Collective, Distributed, Solo
from tests.fakes.gloo import run_ranks
from tests.fakes.tiny_framepack import SECTIONS, pack_model, pack_preset, pack_start, section_order
from tests.fakes.tiny_model import LATENT, image_history, order, text, tiny_model, tiny_preset
from tests.fakes.tiny_video import NONE, i2v_model, i2v_preset, start_image, video_model, video_order, video_preset

WORLDS = (2, 3, 4, 8)
SESSION_WORLDS = (2, 3, 4)
#: New latent frames of a forward: with the one of history 15 tokens, an odd count, and 18.
NEW_FRAMES = (4, 5)
FORWARD_ATOL = 1e-5
SESSION_ATOL = 1e-4
HISTORY = 1
LAYOUTS: tuple[Layout, ...] = ("inverted", "forward")


def forward(collective: Collective, new_frames: int, *, keep: bool) -> Tensor:
    """One model call. Neither tokens nor the 6 heads divide among 4 or 8 ranks, and 8 ranks outnumber the heads."""
    preset = tiny_preset()
    runner = GameCraftDenoiser(preset, tiny_model(preset), collective)
    past = torch.from_numpy(image_history())
    new = torch.randn(16, new_frames, *LATENT, generator=torch.Generator().manual_seed(1))
    stream = runner.stream((HISTORY + new_frames, *LATENT), HISTORY if keep else None)
    with torch.inference_mode():
        camera = torch.randn(3 * new_frames, preset.dit.hidden_size, generator=torch.Generator().manual_seed(2))
        branch = runner.branch(text().positive, camera, stream)
        return runner.predict(with_history(past, new), branch, 700.0, stream)


def session(collective: Collective) -> Tensor:
    """Three guided chunks, each continuing its predecessor's latents as this group computed them."""
    preset = tiny_preset()
    runner = GameCraftDenoiser(preset, tiny_model(preset), collective)
    history, chunks = image_history(), []
    for index, action in enumerate(("w", "left_rot", "d")):
        history = runner.denoise(order(index, action), text(), history)
        chunks.append(torch.from_numpy(history))
    return torch.stack(chunks)


def video(collective: Collective) -> Tensor:
    """A whole video from noise, guided in both ways."""
    preset = video_preset()
    runner = HunyuanVideoDenoiser(preset, video_model(preset), collective)
    return torch.from_numpy(runner.denoise(video_order(guidance=3.0), text(), NONE))


def video_of_image(collective: Collective) -> Tensor:
    """A whole video after its image, guided in both ways."""
    preset = i2v_preset()
    runner = ImageToVideoDenoiser(preset, i2v_model(preset), collective)
    return torch.from_numpy(runner.denoise(video_order(guidance=3.0), text(), start_image()))


def sections(collective: Collective) -> Tensor:
    """FramePack in both orders, guided, each section after the one before; some calls leave the blocks out."""
    made: list[FloatArray] = []
    for layout in LAYOUTS:
        preset, history = pack_preset(layout), None
        runner = FramePackDenoiser(preset, pack_model(preset), collective)
        for index in range(SECTIONS):
            order = section_order(index, guidance=2.0, steps=6, tea_cache=9.0)
            history = runner.denoise(order, text(), history, pack_start())
            made.append(history)
    return torch.from_numpy(np.stack(made))


def every_degree(rank: int) -> dict[str, Tensor]:
    """What this rank computed in every group it is in."""
    results = {}
    for world in WORLDS:
        group = dist.new_group(list(range(world)))
        if rank < world:
            collective = Distributed(group)
            for frames in NEW_FRAMES:
                results[f"all {frames} {world}"] = forward(collective, frames, keep=False)
                results[f"kept {frames} {world}"] = forward(collective, frames, keep=True)
            if world in SESSION_WORLDS:
                results[f"session {world}"] = session(collective)
                results[f"video {world}"] = video(collective)
                results[f"sections {world}"] = sections(collective)
                results[f"image {world}"] = video_of_image(collective)
    return results


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    return run_ranks(max(WORLDS), every_degree, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("frames", NEW_FRAMES)
@pytest.mark.parametrize("world", WORLDS)
def test_a_forward_is_that_of_one_rank(by_rank: list[dict[str, Tensor]], world: int, frames: int) -> None:
    alone = forward(Solo(), frames, keep=False)
    for rank in range(world):
        torch.testing.assert_close(by_rank[rank][f"all {frames} {world}"], alone, atol=FORWARD_ATOL, rtol=0)
        kept = by_rank[rank][f"kept {frames} {world}"]
        torch.testing.assert_close(kept[:, HISTORY:], alone[:, HISTORY:], atol=FORWARD_ATOL, rtol=0)
        assert not kept[:, :HISTORY].any()


@pytest.mark.parametrize(
    ("what", "alone"), [("session", session), ("video", video), ("sections", sections), ("image", video_of_image)]
)
@pytest.mark.parametrize("world", SESSION_WORLDS)
def test_a_run_is_that_of_one_rank(
    by_rank: list[dict[str, Tensor]], world: int, what: str, alone: Callable[[Collective], Tensor]
) -> None:
    torch.testing.assert_close(by_rank[0][f"{what} {world}"], alone(Solo()), atol=SESSION_ATOL, rtol=0)
    for rank in range(1, world):
        assert torch.equal(by_rank[rank][f"{what} {world}"], by_rank[0][f"{what} {world}"])

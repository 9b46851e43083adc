"""Offloaded blocks: two slots, one block ahead, and not a bit of difference in the result."""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actors.models import denoiser
from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.offload import BlockFeed, offload
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.parallel.collective import Solo
from tests.fakes.tiny_model import image_history, order, text, tiny_model, tiny_preset

CPU = torch.device("cpu")
DEPTH = 5


class Block(nn.Module):
    """Weights of two types and an uneven number of bytes, with a buffer among them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Linear(7, width)
        self.narrow = nn.Linear(width, 7, dtype=torch.bfloat16)
        self.register_buffer("bias", torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        narrow: Tensor = self.narrow(self.wide(x).bfloat16())
        return narrow.float() + self.get_buffer("bias")


def blocks(seed: int = 0) -> nn.ModuleList:
    """Blocks of two sizes, as the trunk's are."""
    torch.manual_seed(seed)
    return nn.ModuleList(Block(width) for width in (9, 9, 5, 5, 5)).requires_grad_(False)


def feed_of(module: nn.ModuleList) -> BlockFeed:
    return BlockFeed({block: [*block.parameters(), *block.buffers()] for block in module}, CPU)


def run(module: nn.ModuleList, feed: BlockFeed, x: Tensor) -> Tensor:
    for block in feed.walk(module):
        x = block(x)
    return x


@torch.inference_mode()
def test_results_are_bit_identical() -> None:
    resident = blocks()
    offloaded = copy.deepcopy(resident)
    feed = feed_of(offloaded)
    x = torch.randn(3, 7)
    expected = x
    for block in resident:
        expected = block(expected)
    for _ in range(3):
        assert torch.equal(run(offloaded, feed, x), expected)


@torch.inference_mode()
def test_the_next_block_is_there_before_its_turn() -> None:
    module = blocks()
    feed = feed_of(module)
    for index, block in enumerate(feed.walk(module)):
        following = module[(index + 1) % DEPTH]
        assert {slot.block for slot in feed._slots} == {block, following}
        rooms = {slot.room.untyped_storage().data_ptr() for slot in feed._slots}
        shown = [next(each.parameters()) for each in (block, following)]
        assert {weight.untyped_storage().data_ptr() for weight in shown} == rooms


@torch.inference_mode()
def test_the_device_holds_two_blocks_and_the_host_all() -> None:
    module = blocks()
    largest = max(sum(t.nbytes for t in (*b.parameters(), *b.buffers())) for b in module)
    feed = feed_of(module)
    run(module, feed, torch.randn(3, 7))
    assert 2 * largest <= feed.device_bytes < 2 * (largest + 256 * 5)


@torch.inference_mode()
def test_weights_can_be_read_between_walks() -> None:
    module = blocks()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    feed = feed_of(module)
    run(module, feed, torch.randn(3, 7))
    after = module.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value)


@torch.inference_mode()
def test_any_part_of_the_ring_can_be_walked() -> None:
    """Cached steps run the last block alone; a walk may also be given up half way."""
    module, reference = blocks(), blocks()
    feed = feed_of(module)
    x = torch.randn(3, 7)
    for indices in ([4], [4], [0, 1], [4], [2, 3, 4, 0], [1]):
        for index, block in zip(indices, feed.walk([module[i] for i in indices]), strict=True):
            assert torch.equal(block(x), reference[index](x))
    for block in feed.walk(module):
        assert torch.equal(block(x), reference[0](x))
        break
    assert torch.equal(run(module, feed, x), run(reference, feed_of(reference), x))


@torch.inference_mode()
@pytest.mark.parametrize("depth", [1, 2])
def test_a_ring_may_be_as_short_as_its_slots(depth: int) -> None:
    module = blocks()[:depth]
    reference = copy.deepcopy(module)
    feed = feed_of(module)
    x = torch.randn(3, 7)
    for _ in range(2):
        for block, resident in zip(feed.walk(module), reference, strict=True):
            assert torch.equal(block(x), resident(x))


def with_offload(what: Literal["none", "modulation", "blocks"]) -> Preset:
    preset = tiny_preset()
    return preset.model_copy(update={"runtime": preset.runtime.model_copy(update={"offload": what})})


@pytest.mark.parametrize("what", ["modulation", "blocks"])
def test_a_session_is_bit_identical(what: Literal["modulation", "blocks"]) -> None:
    """Two guided chunks, built the way a rank builds them."""
    resident, offloaded = (denoiser(with_offload(kind), CPU, Solo()) for kind in ("none", what))
    history = image_history()
    for index, action in enumerate(("w", "left_rot")):
        expected = resident.denoise(order(index, action), text(), history)
        assert np.array_equal(offloaded.denoise(order(index, action), text(), history), expected)
        history = expected


def test_cached_steps_are_bit_identical() -> None:
    """At 50 steps the step cache runs the last block alone in between."""
    preset = tiny_preset()
    results = []
    for offloaded in (False, True):
        model = tiny_model(preset)
        if offloaded:
            offload(model, "blocks", CPU)
        runner = GameCraftDenoiser(preset, model, Solo(), step_cache=True)
        results.append(runner.denoise(order(steps=50, guidance=1.0), text(), image_history()))
    assert np.array_equal(results[0], results[1])


@pytest.mark.parametrize(("what", "share"), [("modulation", 0.85), ("blocks", 0.5)])
def test_what_stays_on_the_device(what: Literal["modulation", "blocks"], share: float) -> None:
    """With more blocks than slots, weights outside the feeds' host copies shrink."""
    model = tiny_model(tiny_preset(depth_double_blocks=3, depth_single_blocks=9))
    weights = sum(weight.nbytes for weight in model.parameters())
    blocks = {id(tensor) for block in (*model.double_blocks, *model.single_blocks) for tensor in block.parameters()}
    before = {id(weight): weight.data_ptr() for weight in model.parameters()}
    offload(model, what, CPU)
    staying = sum(w.nbytes for w in model.parameters() if w.data_ptr() == before[id(w)])
    assert staying < share * weights
    assert all(id(w) in blocks for w in model.parameters() if w.data_ptr() != before[id(w)])

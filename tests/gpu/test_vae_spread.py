"""Tiles spread over all GPUs give the bits of one, and every GPU makes some."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.layers import Scratch
from gamecraft_core.vae.model import CausalVae, Decoder
from gamecraft_core.weights.random_init import fill_random
from tests.gpu.sizes import real_preset

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("batch", [1, 2])
def test_tiles_on_all_gpus_are_the_bits_of_one(monkeypatch: pytest.MonkeyPatch, two_gpus: int, batch: int) -> None:
    if len({torch.cuda.get_device_name(number) for number in range(two_gpus)}) > 1:
        pytest.skip("GPUs of several kinds here")
    preset = real_preset(vae_tile_batch=batch)
    vae = CausalVae(preset.vae)
    fill_random(vae, 0)
    random = np.random.default_rng(0)
    latents = random.standard_normal((16, 9, preset.video.height // 8, preset.video.width // 8), np.float32)
    clip = random.integers(0, 256, (9, preset.video.height, preset.video.width, 3), np.uint8)
    one = VaeCodec(preset, vae, "cuda:0")
    expected = one.decode_float(latents).cpu(), one.encode_clip(clip, seed=1)

    tiles: Counter[int | None] = Counter()
    forward = Decoder.forward

    def counted(module: Any, z: Tensor, scratch: Scratch) -> Tensor:
        tiles[z.device.index] += len(z)
        return forward(module, z, scratch)

    monkeypatch.setattr(Decoder, "forward", counted)
    spread = VaeCodec(preset, vae, *(torch.device("cuda", number) for number in range(two_gpus)))
    for _ in range(2):
        assert torch.equal(spread.decode_float(latents).cpu(), expected[0])
    assert np.array_equal(spread.encode_clip(clip, seed=1), expected[1])
    print(f"tiles by GPU: {dict(tiles)}")
    assert tiles.total() == 2 * 4 * 7
    assert set(tiles) == set(range(two_gpus))

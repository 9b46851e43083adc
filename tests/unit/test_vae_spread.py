"""Tiles shared out over devices: the same bits, work on each, and errors that leave the codec usable."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.models import vae_codec
from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.preset import Preset
from gamecraft_core.vae import spread
from gamecraft_core.vae.codec import Frames, VaeCodec
from gamecraft_core.vae.layers import Scratch
from gamecraft_core.vae.model import CausalVae, Decoder, Encoder
from gamecraft_core.weights.loader import load_vae
from jobs.config import load_preset

TILES = 2 * 2 * 3
#: Longest wait for another thread, in seconds; met only by a test that fails.
PATIENCE = 60


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def preset_with(**runtime: Any) -> Preset:
    """The tiny preset in tiles of 32 pixels and 16 frames: 6 x 6 x 8 latents are two windows of 2 x 3 tiles."""
    preset = load_preset("tiny-gamecraft")
    return preset.model_copy(
        update={
            "vae": preset.vae.model_copy(update={"sample_size": 32, "sample_tsize": 16}),
            "runtime": preset.runtime.model_copy(update=runtime),
        }
    )


def codec_on(preset: Preset, *devices: str) -> VaeCodec:
    vae = CausalVae(preset.vae)
    load_vae(preset, vae)
    return VaeCodec(preset, vae, *devices)


def latents(seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((16, 6, 6, 8), np.float32)


def pixels() -> Frames:
    return np.random.default_rng(0).integers(0, 256, (17, 48, 64, 3), np.uint8)


class Watch:
    """Counts tiles by the module that ran them, and lets the first of each wait until all modules have begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type[Decoder] | type[Encoder], devices: int) -> None:
        self.tiles: Counter[int] = Counter()
        self.threads: set[tuple[int, int]] = set()
        forward, begun = kind.forward, threading.Barrier(devices)

        def watched(module: Any, x: Tensor, scratch: Scratch) -> Tensor:
            first = id(module) not in self.tiles
            self.tiles[id(module)] += len(x)
            self.threads.add((id(module), threading.get_ident()))
            if first:
                begun.wait(PATIENCE)
            return forward(module, x, scratch)

        monkeypatch.setattr(kind, "forward", watched)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("devices", [2, 3])
def test_a_decode_is_the_same_bits_and_every_copy_works(
    monkeypatch: pytest.MonkeyPatch, devices: int, batch: int
) -> None:
    preset = preset_with(vae_tile_batch=batch)
    expected = codec_on(preset, "cpu").decode_float(latents())
    watch = Watch(monkeypatch, Decoder, devices)
    codec = codec_on(preset, *["cpu"] * devices)
    for _ in range(2):
        assert torch.equal(codec.decode_float(latents()), expected)
    assert len(watch.tiles) == len(watch.threads) == devices, "one thread for each copy, the same in both calls"
    assert watch.tiles.total() == 2 * TILES
    whole = codec.pixels(latents())
    assert watch.tiles.total() == 3 * TILES
    assert torch.equal(codec.pixels(latents(), (0, 3)), whole[:, :3])
    assert 3 * TILES < watch.tiles.total() < 4 * TILES, "tiles of later frames did not run"


def test_an_encode_is_the_same_bits_and_every_copy_works(monkeypatch: pytest.MonkeyPatch) -> None:
    one = codec_on(preset_with(), "cpu")
    clip, image = one.encode_clip(pixels(), seed=5), one.encode_image(pixels()[0], seed=6)
    watch = Watch(monkeypatch, Encoder, 2)
    codec = codec_on(preset_with(), "cpu", "cpu")
    assert np.array_equal(codec.encode_clip(pixels(), seed=5), clip)
    assert np.array_equal(codec.encode_image(pixels()[0], seed=6), image)
    assert len(watch.tiles) == 2


def test_what_is_not_tiled_runs_on_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = load_preset("tiny-gamecraft")
    expected = codec_on(preset, "cpu").decode(latents())
    watch = Watch(monkeypatch, Decoder, 1)
    assert np.array_equal(codec_on(preset, "cpu", "cpu").decode(latents()), expected)
    assert watch.tiles.total() == 1


def test_two_calls_at_once_do_not_mix() -> None:
    one, codec = codec_on(preset_with(), "cpu"), codec_on(preset_with(), "cpu", "cpu")
    results: dict[int, Frames] = {}
    calls = [
        threading.Thread(target=lambda seed=seed: results.update({seed: codec.decode(latents(seed))}))
        for seed in range(3)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join(PATIENCE)
    for seed in range(3):
        assert np.array_equal(results[seed], one.decode(latents(seed)))


def test_an_error_in_one_tile_ends_the_call_and_not_the_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth tile fails; later ones are held until the call has given up what waits."""
    codec = codec_on(preset_with(), "cpu", "cpu")
    expected = codec.decode(latents())
    forward, ran, given_up = Decoder.forward, itertools.count(1), threading.Event()

    def failing(module: Decoder, z: Tensor, scratch: Scratch) -> Tensor:
        number = next(ran)
        if number == 4:
            raise torch.OutOfMemoryError("no memory for the fourth tile")
        if number > 4:
            given_up.wait(PATIENCE)
        return forward(module, z, scratch)

    def giving_up(futures: Iterable[Future[Tensor]]) -> None:
        given_up.set()
        wait(futures)

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "forward", failing)
        patch.setattr(spread, "wait", giving_up)
        with pytest.raises(torch.OutOfMemoryError, match="the fourth tile"):
            codec.decode(latents())
        after = next(ran)
        assert after <= 4 + 2 + 1, "only what the two threads held still ran"
        with pytest.raises(Poisoned, match="not finite"):
            codec.decode(np.full((16, 1, 2, 2), np.nan, np.float32))
        assert next(ran) == after + 2, "nothing of the failed call was on its way any more"
    assert np.array_equal(codec.decode(latents()), expected)


def test_a_copy_on_the_same_device_holds_no_weights_of_its_own() -> None:
    vae = CausalVae(preset_with().vae)
    load_vae(preset_with(), vae)
    seen: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        forward = Decoder.forward

        def noting(module: Decoder, z: Tensor, scratch: Scratch) -> Tensor:
            seen.update(weight.data_ptr() for weight in module.parameters())
            return forward(module, z, scratch)

        patch.setattr(Decoder, "forward", noting)
        VaeCodec(preset_with(), vae, "cpu", "cpu").decode(latents())
    assert seen == {weight.data_ptr() for weight in vae.decoder.parameters()}


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cuda", ["cuda:0", "cuda:1", "cuda:2"]), ("cuda:1", ["cuda:1"]), ("cpu", ["cpu"])],
)
def test_a_lane_takes_every_gpu_it_is_shown(monkeypatch: pytest.MonkeyPatch, device: str, expected: list[str]) -> None:
    """A lane's device is "cuda"; one with a number, and the CPU, are taken as they are."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("actors.models.load_vae", lambda *_: None)
    given: list[str] = []
    monkeypatch.setattr("actors.models.VaeCodec", lambda _preset, _vae, *devices: given.extend(map(str, devices)))
    vae_codec(preset_with(), torch.device(device))
    assert given == expected

"""The causal VAE: shapes, causality, tiling and the codec around it."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.preset import Preset, VaeConfig
from gamecraft_core.sampling.noise import draw
from gamecraft_core.vae import layers
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.layers import Attention, CausalConv3d, Scratch, Upsample, affine
from gamecraft_core.vae.model import CausalVae, down_factors, up_factors
from gamecraft_core.vae.tiling import Seam, Tiling, blend_into, one_by_one, windows
from gamecraft_core.weights.loader import load_vae
from jobs.config import load_preset

_WIDTHS = (4, 8, 8, 8)

IN_BOTH = Tiling(pixels=8, latents=8, pixel_frames=8, latent_frames=8, space=True, time=True)
IN_SPACE, IN_TIME = dataclasses.replace(IN_BOTH, time=False), dataclasses.replace(IN_BOTH, space=False)


def _vae(ratio: Literal[1, 4, 8] = 4, **changes: Any) -> CausalVae:
    values = {"block_out_channels": _WIDTHS, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 32}
    config = VaeConfig.model_validate(values | {"time_compression_ratio": ratio} | changes)
    torch.manual_seed(ratio)
    return CausalVae(config).eval()


@pytest.fixture(scope="module")
def tiny() -> tuple[Preset, VaeCodec]:
    preset = load_preset("tiny-gamecraft")
    with torch.device("meta"):
        vae = CausalVae(preset.vae)
    load_vae(preset, vae)
    return preset, VaeCodec(preset, vae, "cpu")


@pytest.mark.parametrize(("ratio", "frames", "latents"), [(1, 5, 5), (4, 17, 5), (4, 1, 1), (8, 17, 3), (8, 1, 1)])
def test_frame_counts_by_compression(ratio: Literal[1, 4, 8], frames: int, latents: int) -> None:
    vae = _vae(ratio)
    mean, logvar = vae.encode(torch.zeros(1, 3, frames, 16, 24))
    assert mean.shape == logvar.shape == (1, 16, latents, 2, 3)
    assert vae.decode(mean).shape == (1, 3, frames, 16, 24)


@pytest.mark.parametrize(
    ("ratio", "down", "up"),
    [
        (1, (1, 1, 1), (1, 1, 1)),
        (4, (1, 2, 2), (1, 2, 2)),
        (8, (2, 2, 2), (1, 2, 2)),
    ],
)
def test_where_time_is_scaled(ratio: Literal[1, 4, 8], down: tuple[int, ...], up: tuple[int, ...]) -> None:
    config = _vae(ratio).config
    assert tuple(factor[0] for factor in down_factors(config))[:3] == down
    assert tuple(factor[0] for factor in up_factors(config))[:3] == up
    assert (up_factors(config)[0] == (1, 1, 1)) == (ratio == 8)


@pytest.mark.parametrize("size", [(4, 16, 16), (5, 12, 16), (5, 16, 20)])
def test_sizes_that_no_latent_stands_for(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="divisible by 8"):
        _vae().encode(torch.zeros(1, 3, *size))


def test_a_convolution_never_looks_ahead() -> None:
    conv = CausalConv3d(2, 3)
    x = torch.randn(1, 2, 6, 5, 4)
    changed = x.clone()
    changed[:, :, 4:] += 1
    with torch.inference_mode():
        first, second = conv(x, Scratch()), conv(changed, Scratch())
    assert torch.equal(first[:, :, :4], second[:, :, :4])
    assert not torch.equal(first[:, :, 4:], second[:, :, 4:])


def test_a_convolution_replicates_its_edges() -> None:
    conv, x = CausalConv3d(2, 3), torch.randn(2, 2, 3, 4, 5)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1, 2, 0), mode="replicate")
    with torch.inference_mode():
        torch.testing.assert_close(conv(x, Scratch()), conv.conv(padded), atol=1e-5, rtol=0)


def test_slabs_activate_what_the_whole_would(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, norm, x = CausalConv3d(8, 4), torch.nn.GroupNorm(2, 8), torch.randn(1, 8, 7, 6, 5)
    with torch.inference_mode():
        whole = conv.activated(x, norm, Scratch())
        monkeypatch.setattr(layers, "_LARGE", 0)
        monkeypatch.setattr(layers, "_CACHED", 8 * 6 * 5 * 2)
        torch.testing.assert_close(conv.activated(x, norm, Scratch()), whole, atol=1e-6, rtol=0)
        torch.testing.assert_close(
            whole, conv(torch.nn.functional.silu(norm(x)), Scratch()), atol=1e-5, rtol=0, msg="norm, SiLU, convolution"
        )


def test_scratch_left_by_a_larger_call_is_not_seen() -> None:
    conv, scratch, x = CausalConv3d(2, 3), Scratch(), torch.randn(1, 2, 2, 3, 3)
    with torch.inference_mode():
        alone = conv(x, Scratch())
        conv(torch.full((1, 2, 7, 9, 9), 1e9), scratch)
        assert torch.equal(conv(x, scratch), alone)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_over_prefixes_equals_a_mask(causal: bool) -> None:
    attention, x = Attention(8, 4, causal), torch.randn(1, 8, 3, 2, 2)
    with torch.inference_mode():
        ours = attention(x, Scratch())
        tokens = attention.group_norm(x).flatten(2).transpose(1, 2)
        frame = torch.arange(12) // 4
        mask = (frame[:, None] >= frame[None]) if causal else torch.ones(12, 12, dtype=torch.bool)
        q, k, v = (part(tokens)[:, None] for part in (attention.to_q, attention.to_k, attention.to_v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        expected = x + attention.to_out[0](mixed[:, 0]).transpose(1, 2).view_as(x)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_upsampling_repeats_all_but_the_first_frame_in_time() -> None:
    layer = Upsample(2, (2, 2, 2))
    x = torch.randn(1, 2, 3, 2, 2)
    grown = torch.cat([x[:, :, :1], x[:, :, 1:].repeat_interleave(2, 2)], 2)
    grown = grown.repeat_interleave(2, 3).repeat_interleave(2, 4)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, Scratch()), layer.conv(grown, Scratch()), atol=1e-6, rtol=0)


def test_norm_keeps_its_precision_on_many_values() -> None:
    norm = torch.nn.GroupNorm(2, 4, eps=1e-6)
    x = (torch.randn(1, 4, 9, 64, 112) + 3).contiguous(memory_format=torch.channels_last_3d)
    exact = torch.nn.functional.group_norm(x.double(), 2, eps=1e-6)
    with torch.inference_mode():
        scale, shift = affine(norm, x)
    torch.testing.assert_close((x * scale + shift).double(), exact, atol=3e-6, rtol=0)


def test_windows_at_the_released_size() -> None:
    assert windows(88, 32) == [(0, 32), (24, 56), (48, 80), (72, 88)]
    assert len(windows(152, 32)) == 7
    assert windows(152, 32)[-1] == (144, 152)
    assert windows(33, 16, extra=1) == [(0, 17), (12, 29), (24, 33)]


@given(length=st.integers(1, 70), size=st.sampled_from([4, 8, 16]))
def test_windows_cover_everything(length: int, size: int) -> None:
    covered = {place for start, end in windows(length, size) for place in range(start, end)}
    assert covered == set(range(length))


@given(height=st.integers(1, 21), width=st.integers(1, 21))
def test_tiling_space_of_an_identity_changes_nothing(height: int, width: int) -> None:
    x = torch.randn(1, 2, 1, height, width)
    torch.testing.assert_close(IN_SPACE.encode(x, one_by_one(torch.clone)), x, atol=1e-6, rtol=0)


@given(frames=st.integers(1, 40))
def test_tiling_time_of_an_identity_changes_nothing(frames: int) -> None:
    x = torch.randn(1, 2, frames, 2, 2)
    torch.testing.assert_close(IN_TIME.encode(x, one_by_one(torch.clone)), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tiling", [IN_TIME, IN_SPACE])
def test_wanted_frames_have_the_bits_of_the_whole_without_the_work_for_others(tiling: Tiling) -> None:
    """Latents and pixels are the same to these tilings; every tile is told by a number of its own."""
    x = torch.randn(1, 2, 31, 3, 3)

    def run(tile: torch.Tensor) -> torch.Tensor:
        ran.append(tile.shape[2])
        return tile + tile.mean()

    ran: list[int] = []
    whole, most = tiling.decode(x, one_by_one(run)), len(ran)
    for start in range(31):
        for end in range(start + 1, 32):
            ran.clear()
            assert torch.equal(tiling.decode(x, one_by_one(run), (start, end)), whole[:, :, start:end])
            kept = tiling.pixel_frames * 3 // 4
            assert len(ran) <= min(most, (end - start) // kept + 3)
    if tiling.time:
        assert [Seam.of(8).tiles(window) for window in ((0, 7), (6, 8), (7, 9), (9, 13), (9, 14))] == [
            *(slice(0, 1), slice(0, 2), slice(0, 2), slice(1, 2), slice(1, 3))
        ]


def test_a_seam_ramps_from_the_earlier_tile() -> None:
    before, tile = torch.zeros(1, 1, 8), torch.ones(1, 1, 8)
    blend_into(before, tile, Seam.of(16).blend, dim=2)
    assert tile[0, 0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]


def test_a_short_tile_shortens_its_ramp() -> None:
    before, tile = torch.zeros(1, 1, 8), torch.ones(1, 1, 2)
    blend_into(before, tile, 4, dim=2)
    assert tile[0, 0].tolist() == [0.0, 0.5]


def test_tiles_start_strictly_above_their_size() -> None:
    calls: list[tuple[int, ...]] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape[2:]))
        return x

    IN_BOTH.encode(torch.zeros(1, 1, 8, 8, 8), one_by_one(run))
    assert calls == [(8, 8, 8)]
    IN_TIME.encode(torch.zeros(1, 1, 9, 9, 9), one_by_one(run))
    assert calls[1:] == [(9, 9, 9), (3, 9, 9)]


def test_tiles_change_the_picture() -> None:
    """Group norms pool over a tile, so tiling is part of the numbers."""
    vae, z = _vae(), torch.randn(1, 16, 1, 6, 6)
    tiled = vae.decode(z)
    vae.tiling = dataclasses.replace(vae.tiling, space=False)
    assert (vae.decode(z) - tiled).abs().max() > 1e-3


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_batched_tiles_give_the_same_picture(batch: int) -> None:
    """Six columns of one width, a narrower one and rows of two heights, in sample and in batch."""
    vae, z = _vae(), torch.randn(2, 16, 2, 7, 19)
    pixels = torch.randn(1, 3, 5, 56, 152)
    alone = vae.decode(z), *vae.encode(pixels)
    vae.tiling = dataclasses.replace(vae.tiling, batch=batch)
    for result, expected in zip((vae.decode(z), *vae.encode(pixels)), alone, strict=True):
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_only_tiles_of_one_shape_share_a_batch() -> None:
    shapes: list[tuple[int, ...]] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return x.clone()

    x = torch.randn(1, 2, 1, 8, 26)
    batched = dataclasses.replace(IN_SPACE, batch=3)
    torch.testing.assert_close(batched.encode(x, one_by_one(run)), x, atol=1e-6, rtol=0)
    assert shapes == [
        (3, 2, 1, 8, 8),
        (1, 2, 1, 8, 8),
        (1, 2, 1, 8, 2),
        (3, 2, 1, 2, 8),
        (1, 2, 1, 2, 8),
        (1, 2, 1, 2, 2),
    ]


def test_an_image_is_sampled_from_its_seed(tiny: tuple[Preset, VaeCodec]) -> None:
    preset, codec = tiny
    pixels = np.random.default_rng(0).integers(0, 256, (64, 112, 3), dtype=np.uint8)
    latents = codec.encode_image(pixels, seed=5)
    mean, logvar = codec.moments(pixels[None])
    noise = torch.from_numpy(draw(5, 0, "image_posterior", (16, 1, 8, 14)))
    expected = (mean + (0.5 * logvar).exp() * noise) * preset.vae.scaling_factor
    assert latents.dtype == np.float32
    assert np.array_equal(latents, expected.numpy())
    assert np.array_equal(latents, codec.encode_image(pixels, seed=5))
    assert not np.array_equal(latents, codec.encode_image(pixels, seed=6))


def test_a_clip_becomes_history_and_latents_become_frames(tiny: tuple[Preset, VaeCodec]) -> None:
    _, codec = tiny
    pixels = np.random.default_rng(0).integers(0, 256, (33, 64, 112, 3), dtype=np.uint8)
    pixels.setflags(write=False)  # as arrays come from another process
    latents = codec.encode_clip(pixels, seed=5)
    assert latents.shape == (16, 9, 8, 14)
    frames = codec.decode(latents)
    assert frames.shape == pixels.shape
    assert frames.dtype == np.uint8
    exact = codec.decode_float(latents).permute(1, 2, 3, 0).numpy() * 255
    assert np.array_equal(frames, np.trunc(exact).astype(np.uint8))


def test_random_pictures_have_colour_and_structure(tiny: tuple[Preset, VaeCodec]) -> None:
    frames = tiny[1].decode(1.4 * draw(1, 0, "start_noise", (16, 2, 8, 14)))
    assert frames.std(axis=(1, 2)).min() > 10
    assert ((frames == 0) | (frames == 255)).mean() < 0.2
    assert np.ptp(frames.mean(axis=(0, 1, 2))) < 80


@pytest.mark.parametrize("bias", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_never_become_pixels(tiny: tuple[Preset, VaeCodec], bias: float) -> None:
    """One colour of the whole picture: an infinity, unlike NaN, would come through the clamp as white or black."""
    preset, _ = tiny
    vae = CausalVae(preset.vae)
    load_vae(preset, vae)
    latents = np.zeros((16, 1, 8, 14), np.float32)
    codec = VaeCodec(preset, vae, "cpu")
    codec.decode(latents)
    vae.get_parameter("decoder.conv_out.conv.bias")[1] = bias
    for decode in (codec.decode, codec.decode_float):
        with pytest.raises(Poisoned, match="VAE decoder produced a number that is not finite") as caught:
            decode(latents)
        assert "vae_dtype" in caught.value.remedy


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_number_among_many_is_seen(tiny: tuple[Preset, VaeCodec], bad: float) -> None:
    """At any place of a picture as the VAE lays it out, and however the others lie around it."""
    preset, _ = tiny
    vae = CausalVae(preset.vae)
    load_vae(preset, vae)
    codec, latents = VaeCodec(preset, vae, "cpu"), np.zeros((16, 2, 8, 14), np.float32)
    decode = vae.decode
    for place in ((0, 0, 0, 0, 0), (0, 1, 2, 31, 57), (0, 2, 4, 63, 111)):

        def spoilt(z: torch.Tensor, place: tuple[int, ...] = place, **asked: Any) -> torch.Tensor:
            pixels = decode(z, **asked)
            pixels[place] = bad
            return pixels

        vae.decode = spoilt  # type: ignore[method-assign, assignment]
        with pytest.raises(Poisoned, match="not finite"):
            codec.decode(latents)


def test_the_preset_says_how_many_tiles_run_at_once() -> None:
    preset = load_preset("tiny-gamecraft")
    for batch in (1, 3):
        vae = CausalVae(preset.vae)
        VaeCodec(
            preset.model_copy(update={"runtime": preset.runtime.model_copy(update={"vae_tile_batch": batch})}),
            vae,
            "cpu",
        )
        assert vae.tiling.batch == batch

"""FramePack's sections, what they settle, and the pixels of whole videos, against a loop over the whole history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import FloatArray, StartPayload
from gamecraft_core.base.preset import VaeConfig
from gamecraft_core.base.spec import Layout
from gamecraft_core.families.framepack_paint import SectionPainter
from gamecraft_core.timeline.sections import (
    buckets,
    carried,
    carry,
    clean_inputs,
    indices,
    nearest_bucket,
    paddings,
    section_count,
    video_tokens,
    window_of,
)
from gamecraft_core.timeline.spans import span
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from tests.fakes.section_orders import decode_order
from tests.fakes.tiny_model import tiny_preset

LAYOUTS: list[Layout] = ["inverted", "forward"]
_layouts = st.sampled_from(LAYOUTS)


def latents(value: float, frames: int, side: int = 1) -> FloatArray:
    """Frames that are told apart by their values, all above zero."""
    return np.broadcast_to(np.arange(frames, dtype=np.float32)[:, None, None] + value, (16, frames, side, side)).copy()


def made(layout: Layout, window: int, sections: int) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
    """(start, what each section makes, each section's payload)."""
    start, payloads = latents(1, 1), list[FloatArray]()
    new = [latents(100 * (index + 1), window) for index in range(sections)]
    for one in new:
        payloads.append(carry(layout, window, payloads[-1] if payloads else None, one, start))
    return start, new, payloads


@given(_layouts, st.integers(1, 12), st.integers(1, 9))
def test_a_section_sees_what_the_whole_history_would_show_it(layout: Layout, window: int, sections: int) -> None:
    start, new, payloads = made(layout, window, sections)
    whole = np.zeros((16, 19, 1, 1), np.float32)
    if layout == "forward":
        whole = np.concatenate([whole, start], axis=1)
    for index in range(sections):
        shown = clean_inputs(layout, window, index, sections, payloads[index - 1] if index else None, start)
        near = [shown.near[:, 1:], shown.middle, shown.far]
        np.testing.assert_array_equal(shown.near[:, :1], start)
        if layout == "forward":
            np.testing.assert_array_equal(np.concatenate(near[::-1], axis=1), whole[:, -19:])
            whole = np.concatenate([whole, new[index]], axis=1)
        else:
            np.testing.assert_array_equal(np.concatenate(near, axis=1), whole[:, :19])
            whole = np.concatenate([new[index], whole], axis=1)
        assert payloads[index].shape == (16, carried(window), 1, 1)


@given(_layouts, st.integers(1, 12), st.integers(1, 30), st.data())
def test_places_in_time_never_meet(layout: Layout, window: int, sections: int, data: st.DataObject) -> None:
    found = indices(layout, window, data.draw(st.integers(0, sections - 1)), sections)
    everything = [*found.near, *found.window, *found.middle, *found.far]
    assert len(set(everything)) == len(everything) == 20 + window
    assert (found.near[0], len(found.window), len(found.middle), len(found.far)) == (0, window, 2, 16)
    order = [found.far, found.middle, found.near[1:], found.window]
    flat = [place for part in (order if layout == "forward" else order[::-1]) for place in part]
    assert flat == list(range(flat[0], flat[0] + len(flat)))


def test_inverted_sections_come_ever_nearer_to_the_start() -> None:
    assert [paddings(count) for count in (1, 2, 4)] == [(0,), (1, 0), (3, 2, 1, 0)]
    assert [paddings(count) for count in (5, 7)] == [(3, 2, 2, 1, 0), (3, 2, 2, 2, 2, 1, 0)], "never far away"
    assert all(len(paddings(count)) == count for count in range(1, 120))
    assert indices("inverted", 9, 3, 4).window.start == 1, "the last lies right after the start"


def test_how_many() -> None:
    assert [section_count(seconds, 36) for seconds in (0.01, 5, 5.4, 6.6, 60)] == [1, 4, 4, 6, 50]
    assert section_count(5, 36, fps=15) == 2
    assert window_of(36) == 9


@pytest.mark.parametrize("frames", [0, 33, 37, -4])
def test_a_section_that_is_no_whole_latents(frames: int) -> None:
    with pytest.raises(BadInput, match="chunk_frames"):
        window_of(frames)


def test_no_such_section() -> None:
    with pytest.raises(ValueError, match="no section 3 of 3"):
        indices("inverted", 9, 3, 3)


@given(st.integers(16, 4000), st.integers(16, 4000), st.sampled_from([64, 320, 640]))
def test_the_nearest_bucket_is_near(height: int, width: int, resolution: int) -> None:
    found = nearest_bucket(height, width, resolution)
    assert found in buckets(resolution)
    assert all(side % 16 == 0 for side in found)
    distance = abs(height * found[1] - width * found[0])
    assert all(distance <= abs(height * w - width * h) for h, w in buckets(resolution))


def test_buckets_of_other_resolutions_have_the_same_shapes() -> None:
    assert len(buckets(640)) == len(buckets(320)) == len(buckets(1280)) == 14
    assert buckets(1280) == tuple((2 * height, 2 * width) for height, width in buckets(640))
    assert nearest_bucket(100, 100) == (640, 608), "of two equally near ones the later"
    assert (64, 64) in buckets(64)


def test_tokens_do_not_depend_on_the_length_of_the_video() -> None:
    assert sum(video_tokens(9, 80, 76)) == 17500
    assert video_tokens(3, 8, 12) == (4 * 1 * 2, 1 * 2 * 3, 2 * 4 * 6, 3 * 4 * 6)


class Sums:
    """A decoder whose every frame depends on all latents that are decoded together; ``frames`` are those asked for."""

    def __init__(self) -> None:
        self.frames = 0

    def pixels(self, latents: FloatArray, wanted: tuple[int, int] | None = None) -> Tensor:
        values = torch.from_numpy(latents[:3, :, 0, 0]).double()
        whole = values.repeat_interleave(4, dim=1)[:, 3:, None, None] + values.sum()
        start, end = wanted or (0, whole.shape[1])
        self.frames += end - start
        return whole[:, start:end]


def video_by_a_loop(layout: Layout, window: int, start: FloatArray, new: list[FloatArray], codec: Any) -> Tensor:
    """All pixels and all latents are kept: two windows are decoded a section, and joined with what is there."""
    known: list[FloatArray] = []
    video, overlap = torch.empty(0), 4 * window - 3
    weight = torch.linspace(1, 0, overlap)[:, None, None]
    for index, one in enumerate(new):
        if layout == "forward":
            known = [*known, one] if index else [start, one]
            earlier, later = video, codec.pixels(np.concatenate(known[-2:], axis=1))
        else:
            known = [one, *known] if index < len(new) - 1 else [start, one, *known]
            clip = codec.pixels(np.concatenate(known[: 2 + (index == len(new) - 1)], axis=1))
            earlier, later = clip, video
        if index:
            both = earlier[:, -overlap:] * weight + later[:, :overlap] * (1 - weight)
            video = torch.cat([earlier[:, :-overlap], both, later[:, overlap:]], dim=1)
        else:
            video = later if layout == "forward" else earlier
    return video


def painter(layout: Layout, window: int, codec: Any) -> SectionPainter:
    preset = tiny_preset()
    video = preset.video.model_copy(update={"layout": layout, "chunk_frames": 4 * window})
    return SectionPainter(preset.model_copy(update={"video": video}), codec)


@given(_layouts, st.integers(1, 9), st.integers(1, 9))
def test_what_sections_settle_is_the_video_of_a_loop(layout: Layout, window: int, sections: int) -> None:
    start, new, payloads = made(layout, window, sections)
    expected = video_by_a_loop(layout, window, start, new, Sums())
    assert expected.shape[1] == 4 * window * sections + 1
    codec = Sums()
    chosen, found = painter(layout, window, codec), expected.new_full(expected.shape, -1)
    for index, payload in enumerate(payloads):
        begin, end = span(layout, 4 * window, sections, index)
        pixels = chosen.pixels(index, sections, payload, start)
        assert (pixels is None) == (begin == end)
        if pixels is not None:
            found[:, begin:end] = pixels
    assert torch.equal(found, expected)
    assert codec.frames == found.shape[1] + (sections - 1) * (4 * window - 3), "and no frame more than that"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_have_the_bits_of_whole_decodes(layout: Layout) -> None:
    """With a VAE that tiles in time; and as eight bits, in the order of time."""
    window, sections, side = 6, 3, 16
    sizes = {"block_out_channels": (4, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_tsize": 16}
    preset = tiny_preset()
    torch.manual_seed(0)
    codec = VaeCodec(preset, CausalVae(VaeConfig.model_validate(sizes)), "cpu")
    generator = np.random.default_rng(1)
    start, *new = (
        generator.standard_normal((16, frames, side // 8, side // 8), np.float32)
        for frames in (1, *[window] * sections)
    )
    expected = video_by_a_loop(layout, window, start, new, codec).clamp(-1, 1).mul(127.5).add(127.5).to(torch.uint8)
    chosen, payload, parts = painter(layout, window, codec), None, {}
    for index, one in enumerate(new):
        payload = carry(layout, window, payload, one, start)
        np.testing.assert_array_equal(chosen.newest(payload), one)
        order = decode_order(layout, window, index, sections, side)
        parts[order.place] = chosen.frames(order, payload, StartPayload(start, np.zeros((4, 20), np.float32)))
        assert len(parts[order.place]) == order.frames
    video = np.concatenate([parts[number] for number in range(sections)])
    np.testing.assert_array_equal(video, expected.permute(1, 2, 3, 0).numpy())
    assert video.std() > 1


def test_a_section_is_decoded_with_the_start() -> None:
    with pytest.raises(ValueError, match="start"):
        painter("forward", 2, Sums()).frames(decode_order("forward", 2, 0, 1, 16), latents(1, 19))

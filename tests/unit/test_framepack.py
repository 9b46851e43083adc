"""FramePack's denoiser: what a section depends on, packing, rotary tables by frame index, TeaCache, the start."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.messages import EncodeOrder, FloatArray, StartPayload
from gamecraft_core.base.preset import VaeConfig, VisionConfig
from gamecraft_core.base.spec import Start
from gamecraft_core.dit.embed import CoarseEmbed
from gamecraft_core.dit.offload import offload
from gamecraft_core.dit.rope import Cells, cells_table, rope_table
from gamecraft_core.dit.tea_cache import TeaCache, rescaled
from gamecraft_core.families.framepack import FramePackDenoiser, build_model
from gamecraft_core.families.framepack_start import SightEncoder, SightStarter
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.parallel.shard import Shard
from gamecraft_core.sampling.noise import draw
from gamecraft_core.timeline.sections import carried
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from tests.fakes.tiny_framepack import SIGHT, WINDOW, pack_model, pack_preset, pack_start, section_order
from tests.fakes.tiny_model import HEIGHT, LATENT, WIDTH, draw_weights, text

CPU = torch.device("cpu")
RUNNERS = {
    layout: FramePackDenoiser(pack_preset(layout), pack_model(pack_preset(layout)), Solo())
    for layout in ("inverted", "forward")
}
INVERTED = RUNNERS["inverted"]
SIGLIP: dict[str, int | float | str] = {
    "hidden_size": SIGHT,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def made(
    index: int = 0,
    history: FloatArray | None = None,
    start: StartPayload | None = None,
    layout: str = "inverted",
    **changes: Any,
) -> FloatArray:
    return RUNNERS[layout].denoise(section_order(index, **changes), text(), history, start or pack_start())


def test_a_section_repeats_to_the_bit_and_everything_matters() -> None:
    first = made()
    assert first.shape == (16, carried(WINDOW), *LATENT)
    np.testing.assert_array_equal(made(), first)
    plain = made(1, first)
    changes: list[dict[str, Any]] = [
        {"seed": 12},
        {"shift": 5.0},
        {"embedded_guidance": 6.0},
        {"guidance": 2.0},
        {"chunks": 9},
        {"start": StartPayload(pack_start(6).latents, pack_start().image)},
        {"start": StartPayload(pack_start().latents, pack_start(6).image)},
    ]
    for change in changes:
        assert abs(made(1, first, **change) - plain)[:, :WINDOW].max() > 1e-4, change


@pytest.mark.parametrize("layout", RUNNERS)
@pytest.mark.parametrize("far", [False, True])
def test_every_frame_that_is_shown_matters(layout: str, far: bool) -> None:
    """The nearest of the history and the farthest of those in reach."""
    history = np.random.default_rng(1).standard_normal((16, carried(WINDOW), *LATENT), np.float32)
    place = -1 if (layout == "forward") != far else 0
    changed = history.copy()
    changed[:, place] += 1
    own = slice(None, WINDOW) if layout == "inverted" else slice(-WINDOW, None)
    kept = made(1, history, layout=layout)[:, own]
    assert abs(made(1, changed, layout=layout)[:, own] - kept).max() > 1e-5


@pytest.mark.parametrize("layout", RUNNERS)
def test_a_payload_is_all_that_the_next_section_needs(layout: str) -> None:
    """It comes from the one before and the new latents, whichever way time runs."""
    first = made(layout=layout)
    second = made(1, first, layout=layout)
    held = carried(WINDOW) - WINDOW
    if layout == "inverted":
        np.testing.assert_array_equal(second[:, WINDOW:], first[:, :held])
    else:
        np.testing.assert_array_equal(second[:, :held], first[:, WINDOW:])
        np.testing.assert_array_equal(first[:, -WINDOW - 1], pack_start().latents[:, 0])


def test_given_noise_replaces_the_draw() -> None:
    noise = draw(11, 0, "start_noise", (16, WINDOW, *LATENT))
    given = INVERTED.denoise(section_order(seed=5), text(), None, pack_start(), noise=noise)
    np.testing.assert_array_equal(given, made())


def test_what_does_not_fit_is_refused() -> None:
    history = np.zeros((16, carried(WINDOW), *LATENT), np.float32)
    with pytest.raises(ValueError, match="fit"):
        made(1)
    with pytest.raises(ValueError, match="fit"):
        made(0, history)
    with pytest.raises(ValueError, match="start"):
        INVERTED.denoise(section_order(), text(), None)
    with pytest.raises(UsageError, match=r"dit\.image_dim"):
        build_model(pack_preset(image_dim=0), "meta", torch.float32)


def test_what_is_shown_is_not_predicted_and_does_not_change_what_a_window_costs() -> None:
    blank, nothing = torch.zeros(16, WINDOW, *LATENT), np.zeros((16, 16, *LATENT), np.float32)
    shown = [(nothing, range(16), 4), (nothing[:, :2], range(16, 18), 2), (nothing[:, :2], (0, 18), 1)]
    stream, tokens_at = INVERTED.packed(blank, range(19, 19 + WINDOW), shown)
    assert (stream.shard.total, stream.before, stream.keep) == (4 + 2 + 6 + 9, 12, 12)
    with torch.inference_mode():
        (branch,) = INVERTED.branches(section_order(), text(), stream)
        assert INVERTED.velocity(tokens_at(blank), branch, 5.0, stream).shape == blank.shape


@pytest.mark.parametrize("size", [(1, 2, 2), (4, 8, 8), (5, 6, 10)])
@pytest.mark.parametrize("side", [1, 2, 4])
def test_coarse_tokens_are_a_convolution_over_the_padded_video(size: tuple[int, int, int], side: int) -> None:
    embed = draw_weights(CoarseEmbed(3, 5, (1, 2, 2)).requires_grad_(False), 1)
    video = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    convolution: nn.Conv3d = {1: embed.proj, 2: embed.proj_2x, 4: embed.proj_4x}[side]
    reach = [torch.arange(-(-n // k) * k).clamp(max=n - 1) for n, k in zip(size, convolution.stride, strict=True)]
    padded = video[:, reach[0]][:, :, reach[1]][..., reach[2]]
    expected = convolution(padded[None])[0].flatten(1).T
    torch.testing.assert_close(embed(video, side), expected, atol=1e-5, rtol=0)
    assert len(expected) == Cells(tuple(range(size[0])), size[1] // 2, size[2] // 2, side).tokens


def test_a_table_of_cells_is_the_mean_of_its_patches() -> None:
    times, dims = (3, 4, 7), (2, 4, 2)
    fine = cells_table(Cells(times, 3, 2), dims, 256.0).view(3, 3, 2, -1)
    torch.testing.assert_close(rope_table((8, 3, 2), dims, 256.0).view(8, 3, 2, -1)[list(times)], fine)
    edged = fine[[0, 1, 2, 2]][:, [0, 1, 2, 2]]
    coarse = cells_table(Cells(times, 3, 2, side=2), dims, 256.0).view(2, 2, -1)
    for frame in range(2):
        for row in range(2):
            cell = edged[2 * frame : 2 * frame + 2, 2 * row : 2 * row + 2].flatten(0, 2)
            torch.testing.assert_close(coarse[frame, row], cell.mean(0))
    assert float(coarse.abs().min()) < 0.99, "a mean is no unit rotation"


def test_the_image_comes_before_the_prompt() -> None:
    texts: list[Tensor] = []

    def observe(name: str, value: Tensor) -> None:
        if name == "txt_embed":
            texts.append(value.clone())

    blank = torch.zeros(16, WINDOW, *LATENT)
    stream, tokens_at = INVERTED.packed(blank, range(WINDOW), [])
    with torch.inference_mode():
        (branch,) = INVERTED.branches(section_order(), text(), stream)
        for branch.sight in (None, torch.ones(5, 48)):
            INVERTED.velocity(tokens_at(blank), branch, 5.0, stream, observe)
    assert torch.equal(texts[1], torch.cat([torch.ones(5, 48), texts[0]]))


def test_a_model_of_bfloat16_is_told_rounded_numbers() -> None:
    model = build_model(pack_preset(), "cpu", torch.bfloat16)
    assert {name for name, value in model.state_dict().items() if value.dtype == torch.float32} == {
        "final_layer.linear.weight",
        "final_layer.linear.bias",
    }
    model.load_state_dict(INVERTED.model.state_dict())
    rough = FramePackDenoiser(pack_preset(), model, Solo())
    assert rough._schedule(section_order(steps=25, shift=7.0)).timesteps[:4].tolist() == [1000, 996, 988, 980]
    (branch,) = rough.branches(section_order(), text(), rough.packed(torch.zeros(16, 1, *LATENT), [0], [])[0])
    assert branch.prompt.guidance == 9984
    exactly: dict[str, Any] = {"embedded_guidance": 8.0, "shift": 1.0}  # 8000, 1000, 750, 500, 250 stay what they are
    result = rough.denoise(section_order(**exactly), text(), None, pack_start())
    assert 1e-4 < abs(result - made(**exactly))[:, :WINDOW].mean() < 0.1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_tea_cache_leaves_blocks_out_and_none_where_it_may_not(guidance: float) -> None:
    runs: list[int] = []
    counted = INVERTED.model.double_blocks[0].register_forward_hook(lambda *_: runs.append(1))
    try:
        settings: dict[str, Any] = {"steps": 6, "guidance": guidance}
        whole = made(**settings)
        every = len(runs)
        np.testing.assert_array_equal(made(tea_cache=1e-9, **settings), whole)
        assert len(runs) == 2 * every
        skipping = made(tea_cache=9.0, **settings)
        assert 2 <= len(runs) - 2 * every < every
        assert abs(skipping - whole).max() > 1e-4
        np.testing.assert_array_equal(made(tea_cache=9.0, **settings), skipping)
    finally:
        counted.remove()


@pytest.mark.parametrize("what", ["modulation", "blocks"])
def test_low_memory_makes_the_same_bits(what: Literal["modulation", "blocks"]) -> None:
    """Blocks that TeaCache leaves out do not upset the ring in which they come."""
    model = pack_model(pack_preset())
    offload(model, what, CPU)
    order = section_order(steps=6, tea_cache=9.0)
    found = FramePackDenoiser(pack_preset(), model, Solo()).denoise(order, text(), None, pack_start())
    np.testing.assert_array_equal(found, made(steps=6, tea_cache=9.0))


def test_tea_cache_decides_by_the_sum_of_estimated_changes() -> None:
    """The first and the last call run; between, a small change is left out until such changes add up."""
    tea, one, shard = TeaCache(0.2, 6, Solo()), torch.ones(4, 2), Shard(4)
    change, grown, kept = rescaled(0.1), one, []
    assert change < tea.threshold < 2 * change
    for call in range(6):
        found = tea.kept(grown, shard)
        kept.append(found is not None)
        if found is None:
            tea.keep(torch.full((4, 2), float(call)))
        grown = grown * 1.1
    assert kept == [False, True, False, True, False, False]
    assert tea.ran == [not each for each in kept]


def test_tea_cache_judges_real_rows_only() -> None:
    decided = []
    for padding in (0.0, 1e6):
        tea = TeaCache(0.5, 3, Solo())
        for value in (1.0, 1.1):
            probe = torch.full((5, 2), value)
            probe[4] = padding * value
            if tea.kept(probe, Shard(4, 0, 1)) is None:
                tea.keep(torch.zeros(4, 2))
        decided.append(tea.accumulated)
    assert decided[0] == decided[1] > 0


def sight_preset(**sizes: int | float | str) -> Any:
    vision = VisionConfig(random=SIGLIP | sizes)
    preset = pack_preset()
    runtime = preset.runtime.model_copy(update={"text_dtype": "float32", "vae_dtype": "float32"})
    return preset.model_copy(update={"vision": vision, "runtime": runtime})


def test_a_start_is_the_latents_and_what_the_encoder_says() -> None:
    preset = sight_preset()
    vae = CausalVae(VaeConfig(block_out_channels=(8, 8, 8, 8), norm_num_groups=4)).requires_grad_(False)
    draw_weights(vae, 3)
    codec = VaeCodec(preset, vae, "cpu")
    starter = SightStarter(preset, codec, CPU)
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    order = EncodeOrder(session_id="s", start=Start("image", "x"), height=HEIGHT, width=WIDTH, chunk_frames=12, seed=4)
    start = starter.of_image(pixels, order)
    assert (start.latents.shape, start.image.shape) == ((16, 1, *LATENT), (4, SIGHT))
    np.testing.assert_array_equal(start.latents, codec.encode_image(pixels, 4))
    np.testing.assert_array_equal(start.image, starter.of_image(pixels, order).image)
    assert abs(starter.of_image(255 - pixels, order).image - start.image).max() > 1e-3
    with pytest.raises(ValueError, match="image"):
        starter.of_clip(pixels[None], order)


def test_an_encoder_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="wide"):
        SightEncoder(sight_preset(hidden_size=20), CPU)
    with pytest.raises(UsageError, match=r"vision\.path"):
        SightEncoder(pack_preset(), CPU)

"""Memory predictions against tensors that are really there, at sizes that fit a test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.offload import BlockFeed, offload
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.footprint.live_bytes import LiveBytes
from gamecraft_core.footprint.predict import (
    chunk_peak,
    condition_bytes,
    decode_role,
    denoise_activations,
    encode_role,
    rank_weights,
)
from gamecraft_core.footprint.text import clip_weights, llm_weights, text_role
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.text.models import build_clip, build_llm
from gamecraft_core.vae.codec import VaeCodec
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.quantise import quantise_model
from jobs.config import load_preset
from jobs.memory import BEGIN, END, with_table
from tests.fakes.tiny_model import tiny_model, tiny_preset

CPU = torch.device("cpu")
#: Prediction over fact. The CPU runs fused kernels of its own, and PyTorch's SDPA there lays out its answer otherwise.
FACTOR = 1.25


def sized() -> Preset:
    """Large enough that tokens, not fixed costs, make the peak; deeper than what a prediction runs."""
    preset = tiny_preset(depth_double_blocks=3, depth_single_blocks=4)
    return preset.model_copy(
        update={"video": preset.video.model_copy(update={"height": 96, "width": 128, "chunk_frames": 17})}
    )


def nbytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@torch.inference_mode()
def test_live_bytes_follow_tensors(device: str) -> None:
    before = torch.empty(1000, device=device)
    with LiveBytes(device) as live:
        view = before.view(10, 100)
        assert live.live == 0, "what was there before does not count, nor do its views"
        fresh = view + 1
        part = fresh[:5]
        del fresh
        assert live.live == 4000, "a view keeps all of what it looks at"
        doubled = part * 2
        assert live.live == 6000
        del part
        assert live.live == 2000
        doubled.add_(1)
        assert (live.live, live.peak) == (2000, 6000)
        del doubled
        assert live.live == 0


def test_weights_are_exact() -> None:
    model = tiny_model(sized())
    assert rank_weights(sized()) == nbytes(model)
    quantise_model(model)
    assert rank_weights(sized(), "fp8") == nbytes(model)


@pytest.mark.parametrize("what", ["modulation", "blocks"])
def test_offloaded_weights_are_exact_but_for_alignment(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    feeds: list[BlockFeed] = []
    make = BlockFeed.__init__

    def noting(feed: BlockFeed, weights: object, device: torch.device) -> None:
        make(feed, weights, device)  # type: ignore[arg-type]
        feeds.append(feed)

    monkeypatch.setattr(BlockFeed, "__init__", noting)
    model = tiny_model(sized())
    pointers = {id(weight): weight.data_ptr() for weight in model.parameters()}
    offload(model, what, CPU)  # type: ignore[arg-type]
    staying = sum(weight.nbytes for weight in model.parameters() if weight.data_ptr() == pointers[id(weight)])
    held = staying + sum(feed.device_bytes for feed in feeds)
    predicted = rank_weights(sized(), what)  # type: ignore[arg-type]
    assert predicted <= held <= predicted + 256 * 2 * 24 * len(feeds)


@pytest.mark.parametrize("continuing", [False, True])
def test_denoise_activations(continuing: bool) -> None:
    preset = sized()
    actual = chunk_peak(GameCraftDenoiser(preset, tiny_model(preset), Solo()), preset, continuing=continuing)
    unguided = preset.model_copy(update={"sampling": preset.sampling.model_copy(update={"guidance": 1.0})})
    predicted = denoise_activations(unguided, continuing=continuing)
    assert 1 / FACTOR < (predicted - condition_bytes(unguided)) / actual < FACTOR


def test_activations_shrink_with_the_degree_and_grow_with_history_and_guidance() -> None:
    preset = sized()
    guided = [denoise_activations(preset, continuing=True, world=world) for world in (1, 2, 4)]
    assert guided == sorted(guided, reverse=True)
    assert denoise_activations(preset, continuing=False) < guided[0]
    alone = preset.model_copy(update={"sampling": preset.sampling.model_copy(update={"guidance": 1.0})})
    assert denoise_activations(alone, continuing=True) < guided[0]


def vae_preset() -> Preset:
    preset = load_preset("tiny-gamecraft")
    return preset.model_copy(update={"vae": preset.vae.model_copy(update={"sample_size": 64})})


@pytest.mark.parametrize("batch", [1, 2])
@torch.inference_mode()
def test_decode_and_encode(batch: int) -> None:
    """Tiled both ways; the CPU's route through a norm holds one more tensor than the GPU's, or one less."""
    preset = vae_preset()
    preset = preset.model_copy(update={"runtime": preset.runtime.model_copy(update={"vae_tile_batch": batch})})
    vae = CausalVae(preset.vae)
    codec = VaeCodec(preset, vae, "cpu")
    latents = torch.zeros(16, 9, preset.video.height // 8, preset.video.width // 8).numpy()
    assert decode_role(preset).weights == nbytes(vae)
    with LiveBytes("cpu") as decoding:
        codec.decode(latents)
    assert 1 / 1.5 < decode_role(preset).activations / decoding.peak < 1.5
    with LiveBytes("cpu") as encoding:
        vae.encode(torch.zeros(1, 3, 33, preset.video.height, preset.video.width))
    assert 1 / 1.5 < encode_role(preset).activations / encoding.peak < 1.5


def test_text_weights_are_exact() -> None:
    preset = load_preset("tiny-gamecraft")
    models = [build_llm(preset, CPU), build_clip(preset, CPU)]
    assert text_role(preset).weights == sum(weight.nbytes for model in models for weight in model.parameters())


def test_published_text_models_where_there_are_no_folders() -> None:
    """Sizes that their model cards round to 8 B and 123 M."""
    llm = {
        "vocab_size": 128320,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }
    logits = llm["vocab_size"] * llm["hidden_size"]
    assert llm_weights(llm, 0) + logits == pytest.approx(8.03e9, rel=0.001)
    clip = {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "max_position_embeddings": 77,
    }
    assert clip_weights(clip) == 123_060_480
    absent = load_preset("gamecraft")
    assert not Path(absent.text.llm).exists()
    assert text_role(absent).weights == 2 * (llm_weights(llm, 2) + clip_weights(clip))


def test_a_table_goes_between_its_markers() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_table(document, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(UsageError, match="no place for the table"):
        with_table("no markers", "new")

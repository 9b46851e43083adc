"""Training: the same numbers as inference, a loss that falls, a run that goes on as if it had never stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.messages import TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.families.gamecraft import GameCraftDenoiser, build_model
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.training.ahead import Ahead
from gamecraft_core.training.dit_forward import TextBatch, velocity
from gamecraft_core.training.dit_stage import DitObjective, DitSettings, faded, new_dit
from gamecraft_core.training.group_norm import _GroupNorm
from gamecraft_core.training.latents import Pool, Sample, Samples
from gamecraft_core.training.loop import Objective, Run, Settings, saved_state, strength, train
from gamecraft_core.training.muon import orthogonal, reach
from gamecraft_core.training.publish import normalise_latents, write_weights
from gamecraft_core.training.vae_forward import decode, encode
from gamecraft_core.training.vae_init import new_vae
from gamecraft_core.training.vae_stage import VaeClips, VaeObjective, VaeSettings
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.random_init import fill_random
from tests.fakes.presets import tiny_preset

PRESET = tiny_preset(
    vae={"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 1.0},
    video={"height": 32, "width": 48},
    control={"rotation_speed_max": 45.0},
    runtime={"dtype": "float32", "vae_dtype": "float32", "device": "cpu"},
)
FEW = Settings(steps=6, rate=3e-3, vector_rate=3e-3, warmup=2, save_every=1000, log_every=2)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def states(prompt: str) -> TextStates:
    draw = np.random.default_rng(len(prompt))
    return TextStates(
        draw.standard_normal((3 + len(prompt) % 4, 24), dtype=np.float32), draw.standard_normal(12, dtype=np.float32)
    )


def vae_run(preset: Preset, settings: Settings, first: int = 0) -> Run:
    data = VaeSettings(seed=3, clips_from=2, whole_from=4, bf16=False)
    vae = new_vae(preset, 1, _pixels())
    return Run(VaeObjective(vae, data, Ahead(VaeClips(preset, data), first, processes=0)), settings)


def _pixels() -> torch.Tensor:
    return torch.rand(2, 3, 1, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def dit_run(preset: Preset, settings: Settings, first: int = 0, **data: Any) -> Run:
    pool = Pool(Ahead(Samples(preset, 5, bf16=False), first, processes=0), size=2, fresh=0.5)
    small = DitSettings(seed=2, whole_from=3, guided_from=2, batch=(2, 1, 1), mix=(0.4, 0.3, 0.3), drop=0.3, bf16=False)
    small = replace(small, **data)
    return Run(DitObjective(preset, new_dit(preset, 1), small, pool, states), settings)


def test_the_vae_gives_what_inference_gives() -> None:
    vae = CausalVae(PRESET.vae)
    fill_random(vae, 4)
    x = torch.rand(1, 3, 9, 32, 48) * 2 - 1
    for mine, theirs in zip(encode(vae, x), vae.encode(x), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-5)
    z = torch.randn(1, 16, 3, 4, 6)
    torch.testing.assert_close(decode(vae, z), vae.decode(z), atol=5e-5, rtol=1e-5)


@torch.no_grad()
def test_the_transformer_gives_what_inference_gives() -> None:
    """Two samples with prompts of different lengths, at different timesteps, in one batch."""
    model = build_model(PRESET, "meta", torch.float32)
    fill_random(model, 1)
    denoiser = GameCraftDenoiser(PRESET, model, Solo())
    stream = denoiser.stream((4, 4, 6), None)
    draw = torch.Generator().manual_seed(0)
    texts = [states("a"), states("abc")]
    videos = torch.randn(2, 33, 4, 4, 6, generator=draw)
    cameras = torch.randn(2, 3 * 6, 32, generator=draw)
    times = [700.0, 123.0]
    branches = [denoiser.branch(*pair, stream) for pair in zip(texts, cameras, strict=True)]
    wanted = [
        denoiser.predict(video, branch, time, stream)
        for video, branch, time in zip(videos, branches, times, strict=True)
    ]
    longest = max(len(text.states) for text in texts)
    padded, real = torch.zeros(2, longest, 24), torch.zeros(2, longest, dtype=torch.bool)
    for row, text in enumerate(texts):
        padded[row, : len(text.states)], real[row, : len(text.states)] = torch.tensor(text.states), True
    batch = TextBatch(padded, real, torch.tensor(np.stack([text.pooled for text in texts])))
    camera = torch.stack([added for branch in branches if (added := branch.added) is not None])
    found = velocity(model, videos, torch.tensor(times), batch, camera, stream.rope, PRESET.dit.patch_size)
    assert not batch.even
    torch.testing.assert_close(found, torch.stack(wanted), atol=2e-5, rtol=1e-5)


def test_group_norm_has_the_gradients_of_pytorchs_own() -> None:
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 8, 3, 8, 10, generator=draw) + 0.5).contiguous(memory_format=torch.channels_last_3d)
    weight, bias = torch.randn(8, generator=draw), torch.randn(8, generator=draw)
    grad = torch.randn(x.shape, generator=draw)

    def gradients(own: bool) -> list[torch.Tensor]:
        leaves = [part.clone().requires_grad_() for part in (x, weight, bias)]
        if own:
            y = _GroupNorm.apply(*leaves, 4, 1e-6)  # type: ignore[no-untyped-call]
        else:
            y = torch.nn.functional.group_norm(leaves[0], 4, leaves[1], leaves[2], 1e-6)
        y.backward(grad)
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    for own, theirs in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-3, rtol=1e-4)


class Same:
    """An objective at one step for ever: its loss can be compared with itself."""

    def __init__(self, objective: Objective, step: int) -> None:
        self.module, self._objective, self._step = objective.module, objective, step

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return self._objective.loss(self._step)

    def state(self) -> dict[str, object]:
        return {}

    def restore(self, state: dict[str, object]) -> None:
        raise AssertionError("nothing is restored here")


class Repeated:
    """The same item again and again, in place of what would be made ahead."""

    def __init__(self, item: torch.Tensor) -> None:
        self.take = lambda: item


def test_a_few_steps_lower_the_vaes_loss() -> None:
    data = VaeSettings(seed=3, clips_from=50, whole_from=100, bf16=False)
    clip = VaeClips(PRESET, data)(1)
    objective = VaeObjective(new_vae(PRESET, 1, _pixels()), data, Repeated(clip))  # type: ignore[arg-type]
    run = Run(Same(objective, 0), Settings(steps=30, rate=1e-3, vector_rate=3e-3, warmup=3))
    losses = [run.advance()["loss"] for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_few_steps_lower_the_transformers_loss() -> None:
    fixed = dit_run(PRESET, FEW)._objective
    run = Run(Same(fixed, 3), Settings(steps=100, rate=2e-2, vector_rate=1e-2, warmup=3))
    losses = [run.advance()["loss"] for _ in range(100)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("bf16", [False, True])
def test_guidance_asks_for_more_of_what_a_condition_adds(bf16: bool) -> None:
    plain, guided = (dit_run(PRESET, FEW, guided_from=start, drop=0.0, bf16=bf16)._objective for start in (9, 0))
    first, second = (objective.loss(3)[0].item() for objective in (plain, guided))
    assert first == second, "a new model is moved by no condition yet"
    for objective in (plain, guided):
        fill_random(objective.module, 4)
    first, second = (objective.loss(3)[0].item() for objective in (plain, guided))
    assert first != second


@pytest.mark.parametrize("make", [vae_run, dit_run])
def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(make: object, tmp_path: Path) -> None:
    assert callable(make)
    kept = replace(FEW, keep_at=2, blend=0.25)
    whole = make(PRESET, kept)
    assert train(whole, kept, tmp_path / "whole.ckpt", tmp_path / "whole.jsonl", lambda: False)
    first = make(PRESET, kept)
    assert not train(first, kept, tmp_path / "part.ckpt", tmp_path / "part.jsonl", lambda: first.step == 3)
    saved = saved_state(tmp_path / "part.ckpt")
    assert saved.step == 3
    second = make(PRESET, kept, saved.taken or saved.step)
    second.load(tmp_path / "part.ckpt")
    assert train(second, kept, tmp_path / "part.ckpt", tmp_path / "part.jsonl", lambda: False)
    for name, value in whole.published.items():
        assert torch.equal(value, second.published[name]), name


def test_what_is_published_holds_a_part_of_what_was_kept() -> None:
    run = vae_run(PRESET, replace(FEW, keep_at=2, blend=0.25))
    assert run.published is run.average
    for _ in range(2):
        run.advance()
    kept = {name: value.clone() for name, value in run.average.items()}
    run.advance()
    for name, value in run.average.items():
        torch.testing.assert_close(run.published[name], 0.75 * value + 0.25 * kept[name])


def test_a_faded_history_keeps_its_broad_lines() -> None:
    slope = torch.arange(20.0)
    latents = torch.randn(2, 16, 3, 12, 20, generator=torch.Generator().manual_seed(0)) + slope
    gone = faded(latents, torch.tensor([0.0, 1.0]))
    assert torch.equal(gone[0], latents[0])
    fine = (gone[1] - slope)[:, :, 1:-1, 1:-1]
    assert fine.std() == pytest.approx(1 / 3, rel=0.05), "a mean of nine independent values"
    half = faded(latents, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(half[1], (latents[1] + gone[1]) / 2)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_an_orthogonal_update_moves_all_directions_alike(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2)) * torch.logspace(-3, 2, shape[1])
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    strongest = (u.T @ orthogonal(matrix) @ v.T).diagonal()[:6]
    assert strongest.min() > 0.5, "every direction keeps its sign and comes near 1, however weak it was"
    assert torch.linalg.svdvals(orthogonal(matrix)).max() < 1.4


def test_a_convolutions_reach_is_spread_over_its_taps() -> None:
    assert reach(torch.empty(32, 16)) == pytest.approx(2**0.5)
    assert reach(torch.empty(16, 32)) == 1
    assert reach(torch.empty(16, 16, 3, 3, 3)) == pytest.approx(27**-0.5)


def test_rates_rise_and_fall() -> None:
    settings = Settings(steps=100, rate=1.0, vector_rate=1.0, warmup=10, cooldown=20)
    assert [strength(step, settings) for step in (0, 9, 50, 80, 90)] == [0.1, 1.0, 1.0, 1.0, 0.5]


def test_normalised_latents_decode_to_the_same_pictures() -> None:
    vae = new_vae(PRESET, 1, _pixels())
    clips = [torch.rand(1, 3, 5, 32, 48) * 2 - 1 for _ in range(3)]
    before = decode(vae, encode(vae, clips[0])[0])
    vae.quant_conv.weight.data[:16] *= 3
    vae.post_quant_conv.weight.data /= 3
    assert vae.quant_conv.bias is not None
    vae.quant_conv.bias.data[:16] *= 3
    normalise_latents(vae, clips)
    latents = torch.cat([encode(vae, clip)[0].transpose(0, 1).flatten(1) for clip in clips], dim=1)
    torch.testing.assert_close(latents.mean(1), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(1), torch.ones(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(decode(vae, encode(vae, clips[0])[0]), before, atol=1e-3, rtol=1e-3)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vae.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match="no checkpoint"):
        saved_state(tmp_path / "vae.ckpt")
    torch.save({"weights": {}}, tmp_path / "vae.ckpt")
    with pytest.raises(WeightsError, match="parts are missing"):
        saved_state(tmp_path / "vae.ckpt")
    vae_run(PRESET, FEW).save(tmp_path / "vae.ckpt")
    with pytest.raises(WeightsError, match="of this stage and preset"):
        dit_run(PRESET, FEW).load(tmp_path / "vae.ckpt")


def test_data_made_ahead_comes_in_order() -> None:
    with Ahead(abs, 3, processes=1, most=4) as ahead:
        assert [ahead.take() for _ in range(6)] == [3, 4, 5, 6, 7, 8]


def test_samples_hold_what_a_session_holds() -> None:
    sample: Sample = Samples(PRESET, 1, bf16=False)(0)
    assert sample.clips.shape == (3, 16, 9, 4, 6)
    assert sample.images.shape == (3, 16, 1, 4, 6)
    assert sample.rows.shape == (3, 34, 19)
    assert sample.prompt


def test_weights_are_written_in_bf16(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_weights({"a": torch.tensor([1.0, 2.5])}, tmp_path / "deep" / "a.safetensors")
    found = load_file(str(tmp_path / "deep" / "a.safetensors"))["a"]
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [1.0, 2.5]

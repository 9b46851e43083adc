"""The other families at their real sizes, few layers deep: memory as predicted, bits that repeat; and the tiny ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gamecraft_core.base.family import family_of, load
from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.preset import Preset
from gamecraft_core.families.denoiser import Denoiser
from gamecraft_core.footprint import sample
from gamecraft_core.footprint.predict import chunk_peak, denoise_activations
from gamecraft_core.parallel.collective import Solo
from jobs.config import load_preset
from tests.gpu.sizes import drawn, real_preset
from tests.gpu.test_memory import HIGH, LOW

pytestmark = pytest.mark.gpu

NAMES = ("hunyuan-video", "framepack", "framepack-f1")
#: Sums in another order, in float32.
ATOL = 1e-3


def denoiser(preset: Preset, device: torch.device, dtype: torch.dtype) -> Denoiser[Any]:
    family: type[Denoiser[Any]] = load(family_of(preset.family).denoiser)
    return family(preset, drawn(family.build_model(preset, device, dtype), device), Solo())


def chunk(runner: Denoiser[Any], preset: Preset) -> FloatArray:
    """One step of a continued chunk, or of the only one."""
    order = sample.order(one_step(preset), continuing=True)
    return runner.denoise(order, sample.text(preset), sample.history(preset, continuing=True), sample.start(preset))


def one_step(preset: Preset) -> Preset:
    return preset.model_copy(update={"sampling": preset.sampling.model_copy(update={"steps": 1, "tea_cache": 0.0})})


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_needs_what_was_predicted(cuda: torch.device, name: str) -> None:
    preset = real_preset(name=name)
    runner = denoiser(preset, cuda, torch.bfloat16)
    weights = torch.cuda.memory_allocated(cuda)
    torch.cuda.reset_peak_memory_stats(cuda)
    chunk_peak(runner, preset, continuing=True)
    actual = torch.cuda.max_memory_allocated(cuda) - weights
    ratio = denoise_activations(preset, continuing=True) / actual
    print(f"{name}: predicted / allocated {ratio:.3f} of {actual / 2**30:.2f} GiB")
    assert LOW < ratio < HIGH


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_in_bfloat16_is_finite_and_repeats(cuda: torch.device, name: str) -> None:
    preset = real_preset(name=name)
    runner = denoiser(preset, cuda, torch.bfloat16)
    made = chunk(runner, preset)
    assert np.isfinite(made).all()
    assert np.array_equal(made, chunk(runner, preset))


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_of_the_tiny_model_is_that_of_the_cpu(cuda: torch.device, name: str) -> None:
    preset = load_preset(f"tiny-{name}")
    here = denoiser(preset, torch.device("cpu"), torch.float32)
    there = denoiser(preset, cuda, torch.float32)
    there.model.load_state_dict(here.model.state_dict())
    np.testing.assert_allclose(chunk(there, preset), chunk(here, preset), atol=ATOL, rtol=0)

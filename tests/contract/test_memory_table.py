"""The README's memory table is what the command prints, and says what the README promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from gamecraft_core.footprint.predict import decode_role, denoise_activations, rank_weights
from jobs.config import load_preset
from jobs.memory import BEGIN, END, main

README = Path(__file__).resolve().parents[2] / "README.md"
GIB = 2**30


def test_the_readme_holds_the_command_s_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    written = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert written.strip() == capsys.readouterr().out.strip(), "run: python -m jobs.memory --update README.md"


@pytest.mark.parametrize("name", ["gamecraft", "gamecraft-distill"])
def test_blocks_offloaded_fit_24_gb(name: str) -> None:
    """With 4 GB to spare for CUDA, its allocator and kept tables, in the larger kind of chunk, on one GPU."""
    preset = load_preset(name)
    assert rank_weights(preset, "blocks") + denoise_activations(preset, continuing=True) < 20 * GIB
    assert rank_weights(preset) > 23 * GIB, "and without offload it would not"


@pytest.mark.parametrize("name", ["framepack", "framepack-f1"])
def test_sections_fit_a_small_card(name: str) -> None:
    """Blocks offloaded and decoding in spatial tiles, each below 5 GiB whatever the video's length."""
    preset = load_preset(name)
    assert rank_weights(preset, "blocks") + denoise_activations(preset, continuing=True) < 5 * GIB
    tiled = preset.model_copy(update={"vae": preset.vae.model_copy(update={"sample_size": 256})})
    assert decode_role(tiled).total < 4 * GIB

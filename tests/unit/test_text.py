"""Templates, tokenizer folders and the text encoder around the tiny preset."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gamecraft_core.base.errors import UsageError, WeightsError
from gamecraft_core.base.preset import Preset
from gamecraft_core.text.encoders import TextEncoder
from gamecraft_core.text.kept import KeptStates
from gamecraft_core.text.models import build_clip, build_llm
from gamecraft_core.text.templates import TEMPLATES, template
from jobs.config import PRESETS, load_preset

_FOLDERS = PRESETS / "tiny_text"


@pytest.fixture(scope="module")
def preset() -> Preset:
    return load_preset("tiny-gamecraft")


@pytest.fixture(scope="module")
def encoder(preset: Preset) -> TextEncoder:
    return TextEncoder(preset, "cpu")


def _with(preset: Preset, **text: Any) -> Preset:
    return preset.model_copy(update={"text": preset.text.model_copy(update=text)})


def test_template_is_the_published_one() -> None:
    frame = TEMPLATES["gamecraft"]
    published = frame.before + "{}" + "<|eot_id|>"
    assert hashlib.sha256(published.encode()).hexdigest().startswith("a52f68dd")
    assert frame.wrap("x {y}").endswith("x {y}<|eot_id|>\nThe person looks like<image>")


def test_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="gamecraft"):
        template("hunyuan")


def test_states_have_the_widths_of_the_transformer(preset: Preset, encoder: TextEncoder) -> None:
    text = encoder.encode("A quiet village at dawn.")
    assert text.states.shape == (len(encoder.llm_ids("A quiet village at dawn.")) - 95, preset.dit.text_states_dim)
    assert text.pooled.shape == (preset.dit.text_states_dim_2,)
    assert text.states.dtype == text.pooled.dtype == np.float32
    assert 0.3 < text.states.std() < 10


def test_long_prompts_are_cut_on_the_right(preset: Preset, encoder: TextEncoder) -> None:
    prompt = "a lamp beside the river " * 200
    assert len(encoder.encode(prompt).states) == preset.text.max_tokens
    ids = encoder.clip_ids(prompt)
    assert len(ids) == 77
    assert ids[-1] == max(ids)


def test_prompts_differ_and_depend_on_nothing_else(preset: Preset, encoder: TextEncoder) -> None:
    first = encoder.encode("a red boat")
    assert not np.array_equal(first.pooled, encoder.encode("a blue boat").pooled)
    again = TextEncoder(preset, "cpu").encode("a red boat")
    assert np.array_equal(first.states, again.states)
    assert np.array_equal(first.pooled, again.pooled)


def _counted(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that really go through the models."""
    encoded: list[str] = []
    forward = encoder.llm_ids

    def counting(prompt: str, *, still: bool = False) -> list[int]:
        encoded.append(prompt)
        return forward(prompt, still=still)

    monkeypatch.setattr(encoder, "llm_ids", counting)
    return encoded


def test_a_prompt_is_encoded_once_however_many_come_between(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(preset, "cpu", KeptStates(memory_bytes=20_000))
    encoded = _counted(encoder, monkeypatch)
    prompts = [f"prompt {'x ' * number}" for number in range(12)]
    first = [encoder.encode(prompt) for prompt in prompts]
    assert sum(states.states.nbytes for states in first) > 2 * 20_000
    for _ in range(2):
        for prompt, states in zip(prompts, first, strict=True):
            again = encoder.encode(prompt)
            assert again.states.tobytes() == states.states.tobytes()
            assert again.states.shape == states.states.shape
            assert again.pooled.tobytes() == states.pooled.tobytes()
            assert not again.states.flags.writeable
    assert encoded == prompts


def test_what_is_kept_is_bounded(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(preset, "cpu", KeptStates(memory_bytes=1, file_bytes=1))
    encoded = _counted(encoder, monkeypatch)
    for prompt in ("one", "one", "two", "one"):
        encoder.encode(prompt)
    assert encoded == ["one", "two", "one"]


def test_a_full_disk_only_costs_time(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    encoder = TextEncoder(preset, "cpu", KeptStates(memory_bytes=1))
    encoded = _counted(encoder, monkeypatch)
    first = encoder.encode("one").states.tobytes()
    encoder.encode("two")
    assert encoder.encode("one").states.tobytes() == first
    assert encoded == ["one", "two", "one"]


def _hunyuan(preset: Preset, **text: Any) -> Preset:
    return _with(preset, template="hunyuan-video", image_template="hunyuan-image", image_crop_start=40, **text)


def test_one_frame_is_read_by_the_image_template(preset: Preset) -> None:
    encoder = TextEncoder(_hunyuan(preset), "cpu")
    moving, still = (encoder.encode("a red boat", still=flag) for flag in (False, True))
    assert len(moving.states) == len(still.states)
    assert not np.array_equal(moving.states, still.states)
    assert np.array_equal(moving.pooled, still.pooled)
    assert encoder.encode("a red boat").states is moving.states
    assert encoder.encode("a red boat", still=True).states is still.states


def test_the_shorter_template_leaves_more_for_the_prompt(preset: Preset) -> None:
    """All ids together are 351; what is over-long loses the end of the turn."""
    encoder = TextEncoder(_hunyuan(preset), "cpu")
    for still, states in ((False, 351 - 95), (True, 351 - 40)):
        short, long = (encoder.llm_ids(words, still=still) for words in ("a lamp", "a lamp beside the river " * 200))
        assert len(long) == 351
        assert short[-1] not in long[-20:]
        assert len(encoder.encode("a lamp beside the river " * 200, still=still).states) == states


def test_outer_blanks_go_where_the_family_strips_them(preset: Preset, encoder: TextEncoder) -> None:
    stripping = TextEncoder(_hunyuan(preset), "cpu")
    for ids in (stripping.llm_ids, stripping.clip_ids):
        assert ids("  a red boat \n") == ids("a red boat")
    assert encoder.llm_ids("  a red boat \n") != encoder.llm_ids("a red boat")


def test_wrong_image_crop_is_refused(preset: Preset) -> None:
    with pytest.raises(UsageError, match=r"text\.image_crop_start: .*takes 40 tokens.*not 36"):
        TextEncoder(_with(preset, image_template="hunyuan-image"), "cpu")
    with pytest.raises(UsageError, match=r"text\.image_template: .*'x'"):
        TextEncoder(_with(preset, image_template="x"), "cpu")


def test_wrong_crop_is_refused_with_the_right_count(preset: Preset) -> None:
    with pytest.raises(UsageError, match=r"crop_start.*takes 95 tokens.*not 36"):
        TextEncoder(_with(preset, crop_start=36), "cpu")


@pytest.mark.parametrize("named", ["llm/tokenizer.json", "llm/config.json", "clip/vocab.json", "clip/merges.txt"])
def test_a_folder_without_files_is_named(preset: Preset, tmp_path: Path, named: str) -> None:
    part, file = named.split("/")
    folder = Path(shutil.copytree(_FOLDERS / part, tmp_path / part))
    (folder / file).unlink()
    with pytest.raises(WeightsError, match=rf"text\.{part}.*{part}.*{file}"):
        TextEncoder(_with(preset, **{part: str(folder)}), "cpu")


def test_an_absent_folder_is_named(preset: Preset) -> None:
    with pytest.raises(WeightsError, match=r"text\.llm.*/nowhere"):
        TextEncoder(_with(preset, llm="/nowhere"), "cpu")


def test_weights_from_files_must_be_there(preset: Preset) -> None:
    weights = preset.weights.model_copy(update={"kind": "files", "dit": "unused", "vae": "unused"})
    with pytest.raises(WeightsError, match=r"text\.llm.*no checkpoint"):
        TextEncoder(preset.model_copy(update={"weights": weights}), "cpu")


def _write(folder: Path, tensors: dict[str, torch.Tensor], extra: dict[str, torch.Tensor]) -> None:
    """Two shards and an index, as large models are published."""
    shards = {"model-00001-of-00002.safetensors": tensors, "model-00002-of-00002.safetensors": extra}
    for name, part in shards.items():
        save_file(part, folder / name)
    index = {key: name for name, part in shards.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model.", "model.", ""])
def test_every_layout_of_the_language_model(preset: Preset, tmp_path: Path, prefix: str) -> None:
    folder = Path(shutil.copytree(_FOLDERS / "llm", tmp_path / "llm"))
    drawn = build_llm(preset, torch.device("cpu")).state_dict()
    stored = {prefix + key: value * 2 for key, value in drawn.items()}
    unread = (f"{prefix}norm.weight", f"{prefix}layers.2.mlp.up_proj.weight", "lm_head.weight")
    _write(folder, stored, {key: torch.ones(3) for key in unread})
    model = build_llm(_with(preset, llm=str(folder)), torch.device("cpu"))
    for key, value in model.state_dict().items():
        assert torch.equal(value, stored[prefix + key])


@pytest.mark.parametrize("prefix", ["text_model.", ""])
def test_every_layout_of_clip(preset: Preset, tmp_path: Path, prefix: str) -> None:
    folder = Path(shutil.copytree(_FOLDERS / "clip", tmp_path / "clip"))
    drawn = build_clip(preset, torch.device("cpu")).state_dict()
    stored = {prefix + key: value * 2 for key, value in drawn.items()}
    unread = {"vision_model.x": torch.ones(1), f"{prefix}embeddings.position_ids": torch.arange(77)[None]}
    _write(folder, stored, unread)
    model = build_clip(_with(preset, clip=str(folder)), torch.device("cpu"))
    for key, value in model.state_dict().items():
        assert torch.equal(value, stored[prefix + key])


def test_too_few_layers_to_skip(preset: Preset) -> None:
    with pytest.raises(WeightsError, match="skip_layers"):
        TextEncoder(_with(preset, skip_layers=4), "cpu")


def test_tokenizer_folders_are_small() -> None:
    assert sum(path.stat().st_size for path in _FOLDERS.rglob("*") if path.is_file()) < 200_000


@pytest.mark.parametrize(("name", "steps", "guidance"), [("gamecraft", 50, 2.0), ("gamecraft-distill", 8, 1.0)])
def test_published_presets_have_the_published_sizes(name: str, steps: int, guidance: float) -> None:
    preset = load_preset(name)
    assert (preset.dit.hidden_size, preset.dit.num_heads, preset.dit.head_dim) == (3072, 24, 128)
    assert (preset.sampling.steps, preset.sampling.guidance) == (steps, guidance)
    assert (preset.video.height, preset.video.width, preset.text.crop_start) == (704, 1216, 95)
    assert ("distill" in str(preset.weights.dit)) == (name == "gamecraft-distill")

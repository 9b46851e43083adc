"""The text encoders against their goldens: token ids, states, masks and pooled vectors."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from gamecraft_core.base.preset import Preset
from gamecraft_core.text.encoders import TextEncoder
from tests.parity.goldens import FOLDER, Golden, assert_close, golden, header, names, preset

_ATOL = 3e-5
_NAMES = names("text_encoders")
_PROMPTS = [
    pytest.param(name, row, id=f"{name}-{row}")
    for name in _NAMES
    for row in range(len(header(name).get("prompts", [None])))
]


_ANY_DIT = {
    "hidden_size": 8,
    "num_heads": 1,
    "depth_double_blocks": 1,
    "depth_single_blocks": 1,
    "rope_dim_list": [4, 2, 2],
    "text_states_dim": 8,
    "text_states_dim_2": 8,
}


@cache
def _encoder(name: str) -> TextEncoder:
    """The product's encoder over the folders that the golden's header names."""
    described = golden(name).header
    llava, clip = described["llava"], described["clip"]
    settings = preset(_ANY_DIT).model_dump()
    settings["runtime"]["text_dtype"] = "float32"
    settings["text"] = {
        "llm": str(FOLDER / llava["weights"]),
        "clip": str(FOLDER / clip["weights"]),
        "crop_start": llava["crop_start"],
        "max_tokens": llava["max_length"] - llava["crop_start"],
        "skip_layers": llava["hidden_state_skip_layer"],
    }
    return TextEncoder(Preset.model_validate(settings), "cpu")


def _check_states(encoder: TextEncoder, prompt: str, states: torch.Tensor, mask: torch.Tensor) -> None:
    ours = torch.tensor(encoder.encode(prompt).states)
    assert len(ours) == int(mask.sum())
    assert bool((mask[: len(ours)] == 1).all())
    assert_close(ours, states[: len(ours)], _ATOL, "states")


@pytest.mark.parametrize(("name", "row"), _PROMPTS)
def test_llm(name: str, row: int) -> None:
    file, encoder = golden(name), _encoder(name)
    prompt = file.header["prompts"][row]
    real = file["llava.attention_mask"][row].bool()
    assert encoder.llm_ids(prompt) == file["llava.input_ids"][row][real].tolist()
    _check_states(encoder, prompt, file["llava.hidden"][row], file["llava.mask"][row])


@pytest.mark.parametrize(("name", "row"), _PROMPTS)
def test_clip(name: str, row: int) -> None:
    file, encoder = golden(name), _encoder(name)
    prompt = file.header["prompts"][row]
    real = file["clip.attention_mask"][row].bool()
    assert encoder.clip_ids(prompt) == file["clip.input_ids"][row][real].tolist()
    assert_close(torch.tensor(encoder.encode(prompt).pooled), file["clip.pooled"][row], _ATOL, "pooled")


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize(("pair", "empty"), [("prompt", False), ("negative", True)])
def test_encode_prompt(name: str, pair: str, empty: bool) -> None:
    file, encoder = golden(name), _encoder(name)
    states, mask = (file[f"encode_prompt.{pair}_{what}"][0] for what in ("embeds", "mask"))
    prompt = "" if empty else _prompt_of(file, int(mask.sum()))
    _check_states(encoder, prompt, states, mask)


def _prompt_of(file: Golden, tokens: int) -> str:
    """The pair's prompt is not named: it is the first of the list with that many tokens."""
    counts = file["llava.mask"].sum(1).tolist()
    prompt: str = file.header["prompts"][counts.index(tokens)]
    return prompt


@pytest.mark.parametrize("name", names("pipeline_inputs"))
def test_pipeline_inputs(name: str) -> None:
    """The text tensors that the chunk loop was run with, in the order [negative, positive]."""
    file, encoder = golden(name), _encoder(_NAMES[0])
    for row, prompt in enumerate((file.header["negative_prompt_effective"], file.header["prompt"])):
        _check_states(encoder, prompt, file["text_states"][row], file["text_mask"][row])
        assert_close(torch.tensor(encoder.encode(prompt).pooled), file["text_states_2"][row], _ATOL, "pooled")

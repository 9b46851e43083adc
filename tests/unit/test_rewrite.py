"""Prompts written anew by a language model: a tiny random one, made here, whose likeliest words are found here too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from actors.text import TextActor
from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.messages import TextOrder
from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.text import text_work
from gamecraft_core.footprint.text import text_role
from gamecraft_core.text.encoders import TextEncoder
from gamecraft_core.text.rewrite import PromptRewriter
from gamecraft_core.weights.fingerprint import fingerprint
from jobs.config import PRESETS, load_preset, resolve

TOKENS = 12
ROOM = 512
REQUEST = "Say it well: {prompt}"
PROMPT = "a red boat"
CHAT = "{{ '<|start_header_id|>' }}{% for turn in messages %}{{ turn['content'] }}{% endfor %}{{ '<|eot_id|>' }}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes it, whose own settings ask for samples."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder, tokenizer = tmp_path_factory.mktemp("causal"), cast(Any, PreTrainedTokenizerFast)
    tokenizer(tokenizer_file=str(PRESETS / "tiny_text/llm/tokenizer.json")).save_pretrained(folder)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(3)
    model: Any = LlamaForCausalLM(
        LlamaConfig(vocab_size=495, max_position_embeddings=ROOM, initializer_range=0.5, **sizes, **heads)
    )
    model.generation_config = GenerationConfig.from_dict({"do_sample": True, "temperature": 5.0})
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "causal"))


def rewriting(folder: Path, **text: Any) -> Preset:
    preset = load_preset("tiny-hunyuan-video")
    asked = {"rewrite": str(folder), "rewrite_request": REQUEST, "rewrite_tokens": TOKENS} | text
    return preset.model_copy(update={"text": preset.text.model_copy(update=asked)})


def likeliest(folder: Path, request: str) -> list[int]:
    """The ids of a greedy answer to ``request``, with one whole forward for each."""
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    model: Any = LlamaForCausalLM.from_pretrained(folder)
    ids = list(tokenizer(request, add_special_tokens=not request.startswith("<|"))["input_ids"])
    count = len(ids)
    with torch.inference_mode():
        for _ in range(TOKENS):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[count:]


def worded(folder: Path, ids: list[int]) -> str:
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    return " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())


def set_end(folder: Path, ids: list[int]) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ids}))


def test_the_answer_is_the_likeliest_whatever_the_folders_settings_say(folder: Path) -> None:
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is True
    expected = worded(folder, likeliest(folder, REQUEST.format(prompt=PROMPT)))
    beats: list[int] = []
    rewriter = PromptRewriter(rewriting(folder), "cpu")
    assert rewriter.rewrite(f" {PROMPT} ", lambda: beats.append(1)) == expected != PROMPT
    assert len(beats) >= TOKENS
    assert PromptRewriter(rewriting(folder), "cpu").rewrite(PROMPT) == expected
    assert rewriter.rewrite("a blue boat") != expected


def test_a_prompt_is_written_anew_once(folder: Path) -> None:
    rewriter, beats = PromptRewriter(rewriting(folder), "cpu"), list[int]()
    first = rewriter.rewrite(PROMPT)
    assert rewriter.rewrite(PROMPT, lambda: beats.append(1)) == first
    assert not beats


def test_a_model_of_conversations_is_asked_in_a_turn(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHAT}))
    turn = f"<|start_header_id|>{REQUEST.format(prompt=PROMPT)}<|eot_id|>"
    expected = worded(folder, likeliest(folder, turn))
    assert PromptRewriter(rewriting(folder), "cpu").rewrite(PROMPT) == expected


def test_an_answer_ends_where_the_model_ends_it_and_none_leaves_the_prompt(folder: Path) -> None:
    ids = likeliest(folder, REQUEST.format(prompt=PROMPT))
    end = next(index for index in range(1, TOKENS) if ids[index] not in ids[:index])
    set_end(folder, [494, ids[end]])
    assert PromptRewriter(rewriting(folder), "cpu").rewrite(PROMPT) == worded(folder, ids[:end])
    set_end(folder, ids[:1])
    assert PromptRewriter(rewriting(folder), "cpu").rewrite(PROMPT) == PROMPT


def test_a_prompt_that_leaves_no_room_stays_as_it_is(folder: Path) -> None:
    long = "boats on a river " * ROOM
    rewriter = PromptRewriter(rewriting(folder), "cpu")
    assert rewriter.rewrite(long) == long
    assert PromptRewriter(rewriting(folder, rewrite_tokens=ROOM), "cpu").rewrite(PROMPT) == PROMPT


def test_what_is_no_whole_model_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"text\.rewrite: there is nothing at"):
        PromptRewriter(rewriting(folder / "nowhere"), "cpu")
    weights = folder / "model.safetensors"
    kept = load_file(weights)
    del kept["model.layers.1.mlp.up_proj.weight"]
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 weights, model\.layers\.1\.mlp\.up_proj\.weight"):
        PromptRewriter(rewriting(folder), "cpu")
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        PromptRewriter(rewriting(folder), "cpu")


def test_the_text_lane_encodes_what_was_written_and_says_so(folder: Path) -> None:
    order = TextOrder(session_id="s", prompt=PROMPT, negative_prompt="blurred")
    presets = (rewriting(folder), rewriting(folder, rewrite=None))
    lanes: list[Any] = [TextActor("text-0", preset, 1, {}) for preset in presets]
    for lane in lanes:
        lane.warm()
    (told, states), (plainly, plain) = (lane.run(order) for lane in lanes)
    encoder = TextEncoder(rewriting(folder), "cpu")
    written = told.facts["prompt"]
    assert written == PromptRewriter(rewriting(folder), "cpu").rewrite(PROMPT)
    np.testing.assert_array_equal(states.positive.states, encoder.encode(written).states)
    np.testing.assert_array_equal(states.negative.states, plain.negative.states)
    assert "prompt" not in plainly.facts
    assert states.positive.states.shape != plain.positive.states.shape


def test_it_counts_for_the_fingerprint_only_where_it_is_asked_for(folder: Path) -> None:
    without = fingerprint(rewriting(folder, rewrite=None))
    assert without == fingerprint(load_preset("tiny-hunyuan-video"))
    asked = {fingerprint(rewriting(folder)), fingerprint(rewriting(folder, rewrite_tokens=5))}
    set_end(folder, [494])
    assert len({without, *asked, fingerprint(rewriting(folder))}) == 4


def test_a_plan_counts_its_memory_and_its_words(folder: Path) -> None:
    """The random model's layers are 2 x 7744 weights; 495 rows of 32 are read as words and told as such, and a norm."""
    weights = 2 * 7744 + 2 * 495 * 32 + 32
    asked, without = rewriting(folder), rewriting(folder, rewrite=None)
    assert text_role(asked).weights - text_role(without).weights == 4 * weights
    more = text_work(asked) + text_work(without) * -1
    assert more.matmul == TOKENS * 2 * weights
    assert more.weight_bytes == (TOKENS + 1) * 4 * weights  # and once with the encoders'
    assert text_work(rewriting(folder / "nowhere")) == text_work(without)


def test_the_folder_is_seen_from_where_the_command_runs_and_the_request_holds_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = resolve("tiny-gamecraft", sets=["preset.text.rewrite=models/small"]).preset
    assert preset.text.rewrite == str(tmp_path / "models/small")
    with pytest.raises(ValidationError, match="must hold"):
        type(preset.text).model_validate(preset.text.model_dump() | {"rewrite_request": "Say it well."})

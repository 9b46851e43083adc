"""A prompt becomes the states that condition a denoise, once per prompt.

Invariant: an answer depends on the prompt and the weights only, so it is kept by content. Prompts run unpadded, one
at a time: padding would only be computed and dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gamecraft_core.base.errors import UsageError, WeightsError
from gamecraft_core.base.messages import FloatArray, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.text.kept import KeptStates
from gamecraft_core.text.models import build_clip, build_llm
from gamecraft_core.text.templates import template
from gamecraft_core.weights.readers import local, pick_text

_CLIP_TOKENS = 77


class TextEncoder:
    """LLaVA's language model and CLIP's text model on one device, with the states of the prompts seen so far."""

    def __init__(self, preset: Preset, device: torch.device | str, kept: KeptStates | None = None) -> None:
        self._device = torch.device(device)
        self._template = template(preset.text.template)
        self._crop = preset.text.crop_start
        self._max_tokens = preset.text.max_tokens
        self._llm_tokenizer = _llm_tokenizer(preset.text.llm)
        self._clip_tokenizer = _clip_tokenizer(preset.text.clip)
        self._check_crop(preset.text.llm)
        self._llm = build_llm(preset, self._device)
        self._clip = build_clip(preset, self._device)
        self._kept = kept or KeptStates()

    def encode(self, prompt: str) -> TextStates:
        """States of the prompt's real tokens, and its pooled vector. Arrays are shared: do not write to them."""
        states = self._kept.get(prompt)
        if states is None:
            states = TextStates(states=self._llm_states(prompt), pooled=self._pooled(prompt))
            self._kept.put(prompt, states)
        return states

    def llm_ids(self, prompt: str) -> list[int]:
        """Token ids of the prompt in its template, cut on the right to the preset's length."""
        ids: list[int] = self._llm_tokenizer.encode(self._template.wrap(prompt)).ids
        return ids[: self._crop + self._max_tokens]

    def clip_ids(self, prompt: str) -> list[int]:
        """Token ids of the bare prompt for CLIP, ended by its end-of-text id."""
        ids: list[int] = self._clip_tokenizer(prompt, truncation=True, max_length=_CLIP_TOKENS)["input_ids"]
        return ids

    @torch.inference_mode()
    def _llm_states(self, prompt: str) -> FloatArray:
        ids = torch.tensor([self.llm_ids(prompt)], device=self._device)
        states = self._llm(input_ids=ids, use_cache=False).last_hidden_state
        return _frozen(states[0, self._crop :])

    @torch.inference_mode()
    def _pooled(self, prompt: str) -> FloatArray:
        """The final state at the highest id: the end of text. (The published config names a wrong end id.)"""
        ids = torch.tensor([self.clip_ids(prompt)], device=self._device)
        return _frozen(self._clip(input_ids=ids).last_hidden_state[0, int(ids.argmax())])

    def _check_crop(self, folder: str) -> None:
        found = len(self._llm_tokenizer.encode(self._template.before).ids)
        if found != self._crop:
            raise UsageError(
                f"the template takes {found} tokens with the tokenizer in {folder}, not {self._crop}",
                field="text.crop_start",
                remedy="name the tokenizer that belongs to this preset, or set crop_start to that count",
            )


def _frozen(states: torch.Tensor) -> FloatArray:
    array: FloatArray = states.float().cpu().contiguous().numpy()
    array.setflags(write=False)
    return array


def _llm_tokenizer(path: str) -> Any:
    """The fast tokenizer as stored; transformers' Llama class would rebuild it differently."""
    from tokenizers import Tokenizer

    folder = _require(path, "text.llm", ["tokenizer.json"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _clip_tokenizer(path: str) -> Any:
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    folder = _require(path, "text.clip", ["vocab.json", "merges.txt"])
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def _require(path: str, field: str, names: list[str]) -> Path:
    folder = local(path, field, pick_text)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise WeightsError(
            f"the tokenizer folder {folder} lacks {', '.join(missing)}", field=field, remedy="fetch the whole folder"
        )
    return folder

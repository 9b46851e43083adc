"""A prompt becomes the states that condition a denoise, once per prompt and template.

Invariant: an answer depends on the prompt and the weights only, so it is kept by content. Prompts run unpadded, one
at a time: padding would only be computed and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gamecraft_core.base.errors import UsageError, WeightsError
from gamecraft_core.base.messages import FloatArray, TextStates
from gamecraft_core.base.preset import Preset, TextConfig
from gamecraft_core.text.kept import KeptStates
from gamecraft_core.text.models import build_clip, build_llm
from gamecraft_core.text.templates import Template, template
from gamecraft_core.weights.readers import local, pick_text

_CLIP_TOKENS = 77


@dataclass(frozen=True, slots=True)
class Crop:
    """A template and the tokens it takes before the prompt, by the name of the preset's field that says so."""

    name: str
    template: Template
    start: int
    field: str

    @staticmethod
    def all_of(config: TextConfig) -> tuple[Crop, Crop | None]:
        """That of videos, and that of single images in presets that have one."""
        video = Crop(config.template, template(config.template), config.crop_start, "text.crop_start")
        if not config.image_template:
            return video, None
        image = template(config.image_template, "text.image_template")
        return video, Crop(config.image_template, image, config.image_crop_start, "text.image_crop_start")


class TextModels:
    """LLaVA's language model and CLIP's text model on one device: token ids in, states out."""

    def __init__(self, preset: Preset, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._llm = build_llm(preset, self._device)
        self._clip = build_clip(preset, self._device)

    @torch.inference_mode()
    def states(self, ids: list[int], crop: int) -> FloatArray:
        """The language model's states [tokens, width] of ``ids`` from ``crop`` on."""
        states = self._llm(input_ids=torch.tensor([ids], device=self._device), use_cache=False).last_hidden_state
        return _frozen(states[0, crop:])

    @torch.inference_mode()
    def pooled(self, ids: list[int]) -> FloatArray:
        """CLIP's final state at the end of text."""
        states = self._clip(input_ids=torch.tensor([ids], device=self._device)).last_hidden_state
        return _frozen(states[0, end_of_text(ids)])


class TextEncoder:
    """The text models behind their tokenizers and templates, with the states of the prompts seen so far."""

    def __init__(self, preset: Preset, device: torch.device | str, kept: KeptStates | None = None) -> None:
        self._video, self._image = Crop.all_of(preset.text)
        self._most_ids = preset.text.crop_start + preset.text.max_tokens
        self._llm_tokenizer = _llm_tokenizer(preset.text.llm)
        self._clip_tokenizer = _clip_tokenizer(preset.text.clip)
        for crop in filter(None, (self._video, self._image)):
            self._check_crop(crop, preset.text.llm)
        self._models = TextModels(preset, device)
        self._kept = kept or KeptStates()

    def encode(self, prompt: str, *, still: bool = False) -> TextStates:
        """States of the prompt's real tokens, and its pooled vector. Arrays are shared: do not write to them.

        ``still``: for a video of one frame, by the image template of presets that have one.
        """
        crop = self._crop(still)
        key = prompt if crop is self._video else f"{crop.name}\0{prompt}"
        states = self._kept.get(key)
        if states is None:
            ids = self.llm_ids(prompt, still=still)
            pooled = self._models.pooled(self.clip_ids(prompt, still=still))
            states = TextStates(states=self._models.states(ids, crop.start), pooled=pooled)
            self._kept.put(key, states)
        return states

    def llm_ids(self, prompt: str, *, still: bool = False) -> list[int]:
        """Token ids of the prompt in its template, cut on the right to the preset's length."""
        crop = self._crop(still)
        words = crop.template.wrap(crop.template.prepared(prompt))
        ids: list[int] = self._llm_tokenizer.encode(words).ids
        return cut_ids(ids, self._most_ids)

    def clip_ids(self, prompt: str, *, still: bool = False) -> list[int]:
        """Token ids of the bare prompt for CLIP, ended by its end-of-text id."""
        words = self._crop(still).template.prepared(prompt)
        ids: list[int] = self._clip_tokenizer(words, truncation=True, max_length=_CLIP_TOKENS)["input_ids"]
        return ids

    def _crop(self, still: bool) -> Crop:
        return self._image if still and self._image else self._video

    def _check_crop(self, crop: Crop, folder: str) -> None:
        found = len(self._llm_tokenizer.encode(crop.template.before).ids)
        if found != crop.start:
            raise UsageError(
                f"the template takes {found} tokens with the tokenizer in {folder}, not {crop.start}",
                field=crop.field,
                remedy=f"name the tokenizer that belongs to this preset, or set {crop.field} to that count",
            )


def cut_ids(ids: list[int], most: int) -> list[int]:
    """What the language model reads: at most ``most`` ids, whatever the template takes of them.

    So the shorter image template leaves more for the prompt, and what is over-long loses the template's end.
    """
    return ids[:most]


def end_of_text(ids: list[int]) -> int:
    """Where CLIP's pooled state is read: at the first end-of-text id, the highest there is.

    (The published configuration names a wrong end id.)
    """
    return ids.index(max(ids))


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

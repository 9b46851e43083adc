"""Writing a prompt anew with a causal language model, before it is encoded.

Invariant: what comes out depends on the prompt, the preset and the model's folder only: the likeliest token is taken
at every step, whatever the folder's own generation settings say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.preset import Preset
from gamecraft_core.weights.readers import local, pick_language_model

_FIELD = "text.rewrite"
_MOST_KEPT = 4096


class PromptRewriter:
    """The language model in the folder ``text.rewrite``, asked as ``text.rewrite_request`` says."""

    def __init__(self, preset: Preset, device: torch.device | str) -> None:
        from transformers import GenerationConfig

        text = preset.text
        self._request, self._most, self._device = text.rewrite_request, text.rewrite_tokens, torch.device(device)
        self._tokenizer, self._model = _load(text.rewrite or "", getattr(torch, preset.runtime.text_dtype))
        self._model.to(self._device)
        self._ends = ends = _ends(self._model, self._tokenizer)
        # Settings that are not the model's own would be filled up from the folder's, sampling among them.
        self._model.generation_config = cast(Any, GenerationConfig)(
            do_sample=False, max_new_tokens=self._most, eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0
        )
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._room = None if limit is None else limit - self._most
        self._kept: dict[str, str] = {}

    @torch.inference_mode()
    def rewrite(self, prompt: str, beat: Callable[[], None] = lambda: None) -> str:
        """The prompt in the model's words; as it is where it is too long for the model, or has no answer.

        ``beat`` is called at every token.
        """
        if prompt not in self._kept:
            if len(self._kept) == _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[prompt] = self._answer(self._ids(prompt), beat) or prompt
        return self._kept[prompt]

    def _ids(self, prompt: str) -> list[int]:
        """The request, as a turn of a conversation where the model is made for those."""
        request = self._request.replace("{prompt}", prompt.strip())
        if not self._tokenizer.chat_template:
            return list(self._tokenizer(request)["input_ids"])
        turn = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": request}],
            add_generation_prompt=True,
            return_dict=True,
            enable_thinking=False,  # known to models that would think aloud first
        )
        return list(turn["input_ids"])

    def _answer(self, ids: list[int], beat: Callable[[], None]) -> str:
        """As one line; "" where the request leaves no room for one."""
        if self._room is not None and len(ids) > self._room:
            return ""
        asked = torch.tensor([ids], device=self._device)
        told = self._model.generate(asked, attention_mask=torch.ones_like(asked), streamer=_Beats(beat))
        words = [token for token in told[0, len(ids) :].tolist() if token not in self._ends]
        return " ".join(self._tokenizer.decode(words, skip_special_tokens=True).split())


class _Beats:
    """What ``generate`` tells its tokens as they come."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat

    def put(self, tokens: torch.Tensor) -> None:
        self._beat()

    def end(self) -> None:
        pass


def _load(place: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Tokenizer and model. Nothing is fetched, no code of the folder is run, and no weight may be missing."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    cast(Any, logging).disable_progress_bar()
    folder, models = local(place, _FIELD, pick_language_model), cast(Any, AutoModelForCausalLM)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model, found = models.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        remedy = "name the folder of a causal language model: config.json, tokenizer and safetensors"
        raise WeightsError(f"{folder} cannot be loaded: {error}", field=_FIELD, remedy=remedy) from error
    if missing := sorted(found["missing_keys"]):
        remedy = "name a folder that is whole"
        raise WeightsError(f"{folder} lacks {len(missing)} weights, {missing[0]} first", field=_FIELD, remedy=remedy)
    return tokenizer, model.eval().requires_grad_(False)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The ids that end an answer."""
    found = model.generation_config.eos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    return found if isinstance(found, list) else [] if found is None else [found]

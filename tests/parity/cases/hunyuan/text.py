"""Text: stored token ids to states, masks and pooled vectors; templates and cuts, by ids of the real vocabularies."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gamecraft_core.text.encoders import cut_ids, end_of_text
from gamecraft_core.text.templates import TEMPLATES
from tests.parity.cases.hunyuan.models import config, text_models
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

LLM_ATOL, CLIP_ATOL = 5e-4, 1e-5
#: Names of tensors that need no comparison.
INPUTS = r"\w+\.(?:input_ids|attention_mask)"
IDS = "prompt_token_ids.json"
#: The published names of the templates, and ours.
_TEMPLATES = {"dit-llm-encode-video": "hunyuan-video", "dit-llm-encode": "hunyuan-image"}


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for name in sorted({name.split(".")[0] for name in file.names()}):
        yield Case(name, partial(_pooled if name == "clip" else _states, folder, file, name))


def encoded(folder: Folder, ids: Tensor, mask: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """One row of padded ids to states and mask of its ``tokens - crop`` rows; padding is not computed, and zero."""
    real = int(mask.sum())
    found = torch.tensor(text_models(folder).states(ids[:real].tolist(), crop))
    states = found.new_zeros(len(ids) - crop, found.shape[1])
    states[: len(found)] = found
    return states, (torch.arange(len(states)) < len(found)).long()


def pooled(folder: Folder, ids: Tensor) -> Tensor:
    return torch.tensor(text_models(folder).pooled(ids.tolist()))


def _states(folder: Folder, file: Golden, name: str, check: Check) -> None:
    ids, masks = file.given(f"{name}.input_ids"), file.given(f"{name}.attention_mask")
    crop = config(folder)["text"]["crop_start"][name]
    states, real = zip(*(encoded(folder, *row, crop) for row in zip(ids, masks, strict=True)), strict=True)
    check.tensor(file, f"{name}.prompt_embeds", torch.stack(states), LLM_ATOL)
    check.tensor(file, f"{name}.prompt_mask", torch.stack(real), 0.0)


def _pooled(folder: Folder, file: Golden, name: str, check: Check) -> None:
    made = torch.stack([pooled(folder, ids) for ids in file.given(f"{name}.input_ids")])
    check.tensor(file, f"{name}.pooled", made, CLIP_ATOL)


def id_cases(folder: Folder, name: str) -> Iterator[Case]:
    """Templates, and each prompt's ids under them."""
    stored = folder.json(name)
    yield Case("prompt_token_ids/templates", partial(_templates, stored))
    for index, prompt in enumerate(stored["prompts"]):
        yield Case(f"prompt_token_ids/{index}", partial(_prompt, stored, prompt))


def _templates(stored: dict[str, Any], check: Check) -> None:
    for published, ours in _TEMPLATES.items():
        if published in stored["templates"]:
            described = stored["templates"][published]
            check.equal(f"{published} template", TEMPLATES[ours].wrap("{}"), described["template"])
            check.equal(f"{published} crop_start", len(described["prefix_ids"]), described["crop_start"])


def _prompt(stored: dict[str, Any], prompt: dict[str, Any], check: Check) -> None:
    """Where the cut falls, and where CLIP is read. (The vocabularies themselves are not here.)"""
    for published, ours in _TEMPLATES.items():
        if published not in prompt:
            continue
        check.equal("prompt_used", TEMPLATES[ours].prepared(prompt["prompt"]), prompt["prompt_used"])
        described, before = prompt[published], stored["templates"][published]["prefix_ids"]
        left = described["total_ids_untruncated"] - len(before) - len(described["ids_after_crop"])
        whole = [*before, *described["ids_after_crop"], *[-1] * left]
        made = cut_ids(whole, stored["max_length"])[len(before) :]
        check.equal(f"{published} ids", made, described["ids_after_crop"])
        check.equal(f"{published} valid_after_crop", len(made), described["valid_after_crop"])
        check.equal(f"{published} truncated", len(made) + len(before) < len(whole), described["truncated"])
    if "clipL" in prompt:
        check.equal("eos_position", end_of_text(prompt["clipL"]["ids"]), prompt["clipL"]["eos_position"])

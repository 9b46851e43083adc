"""The text encoders: prompts to token ids, states, masks and pooled vectors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gamecraft_core.text.encoders import TextEncoder
from tests.parity.check import Case, Check, largest_error
from tests.parity.golden import Folder, Golden
from tests.parity.models import text_encoder

ATOL = 3e-5
STEM = "text_encoders"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    if file.names("llava."):
        yield Case("llava", partial(_llm, folder, file))
    if file.names("clip."):
        yield Case("clip", partial(_clip, folder, file))
    for which in ("prompt", "negative"):
        if file.names(f"encode_prompt.{which}_"):
            yield Case(f"encode_prompt.{which}", partial(_encode_prompt, folder, file, which))


def encoder(folder: Folder, llm: Path, clip: Path) -> TextEncoder:
    """The product's encoder over two folders, by the sizes that this family's text golden states, if there is one."""
    if not folder.has(STEM):
        return text_encoder(llm, clip)
    llava = folder.golden(STEM).header["llava"]
    sizes = {
        "crop_start": llava["crop_start"],
        "max_tokens": llava["max_length"] - llava["crop_start"],
        "skip_layers": llava["hidden_state_skip_layer"],
    }
    return text_encoder(llm, clip, tuple(sizes.items()))


def padded_states(made: TextEncoder, prompt: str, tokens: int) -> tuple[Tensor, Tensor]:
    """States and mask of ``tokens`` rows: padding is not computed here and stored as zero there."""
    ours = torch.tensor(made.encode(prompt).states)
    states = ours.new_zeros(max(tokens, len(ours)), ours.shape[1])
    states[: len(ours)] = ours
    return states, _mask(len(ours), tokens)


def _mask(real: int, total: int) -> Tensor:
    return (torch.arange(total) < real).long()


def _encoder(folder: Folder, file: Golden) -> TextEncoder:
    return encoder(folder, *(folder.path / file.header[part]["weights"] for part in ("llava", "clip")))


def _tokens(file: Golden) -> int:
    """Rows of a padded prompt's states."""
    tokens: int = file.header["llava"]["max_length"] - file.header["llava"]["crop_start"]
    return tokens


def _ids(file: Golden, part: str, made: list[list[int]], check: Check) -> None:
    """Ids of every prompt; what stands at padded places is the tokenizer's affair and taken over."""
    if f"{part}.input_ids" not in file:
        return
    ours = file.expected(f"{part}.input_ids").clone()
    for row, ids in zip(ours, made, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    masks = torch.stack([_mask(len(ids), ours.shape[1]) for ids in made])
    check.tensor(file, f"{part}.input_ids", ours, 0.0)
    check.tensor(file, f"{part}.attention_mask", masks, 0.0)


def _llm(folder: Folder, file: Golden, check: Check) -> None:
    made, prompts = _encoder(folder, file), file.header["prompts"]
    _ids(file, "llava", [made.llm_ids(prompt) for prompt in prompts], check)
    states, masks = zip(*(padded_states(made, prompt, _tokens(file)) for prompt in prompts), strict=True)
    check.tensor(file, "llava.hidden", torch.stack(states), ATOL)
    check.tensor(file, "llava.mask", torch.stack(masks), 0.0)


def _clip(folder: Folder, file: Golden, check: Check) -> None:
    made, prompts = _encoder(folder, file), file.header["prompts"]
    _ids(file, "clip", [made.clip_ids(prompt) for prompt in prompts], check)
    check.tensor(
        file, "clip.pooled", torch.stack([torch.tensor(made.encode(prompt).pooled) for prompt in prompts]), ATOL
    )


def _encode_prompt(folder: Folder, file: Golden, which: str, check: Check) -> None:
    """The pair of a positive and the empty prompt. Which positive one is not said: the known one that comes closest."""
    made = _encoder(folder, file)
    names = [f"encode_prompt.{which}_{what}" for what in ("embeds", "mask")]
    known = _positive_prompts(folder, file) if which == "prompt" else [""]

    def distance(pair: tuple[Tensor, Tensor]) -> float:
        stored = zip(names, pair, strict=True)
        return sum(largest_error(ours[None], file.expected(name)) for name, ours in stored if name in file)

    states, mask = min((padded_states(made, prompt, _tokens(file)) for prompt in known), key=distance)
    check.tensor(file, names[0], states[None], ATOL)
    check.tensor(file, names[1], mask[None], 0.0)


def _positive_prompts(folder: Folder, file: Golden) -> list[str]:
    runs = [folder.golden("pipeline_inputs").header["prompt"]] if folder.has("pipeline_inputs") else []
    return [*file.header["prompts"], *runs]

"""The transformer in the diffusers layout, both ways: other names, fused matrices apart, one pair of halves exchanged.

The trunk's names are the official ones. There the rows of a fused linear (q, k, v and, in single blocks, the MLP's
first) lie one after the other; diffusers stores each part by itself. The final modulation gives (shift, scale), in
diffusers (scale, shift). VAE and text encoders have the same names in both layouts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.weights.source import Entry, Source

_QKV = ("to_q", "to_k", "to_v")
_EMBEDDERS = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
#: FramePack's own layers, published under these names only.
_SAME = (
    *(f"clean_x_embedder.{part}" for part in ("proj", "proj_2x", "proj_4x")),
    *(f"image_projection.{part}" for part in ("up", "down")),
)
_SWAPPED = {"final_layer.adaLN_modulation.1": "norm_out.linear"}
_REFINER = {
    "norm1": ("norm1",),
    "norm2": ("norm2",),
    "self_attn_qkv": tuple(f"attn.{part}" for part in _QKV),
    "self_attn_proj": ("attn.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
    "adaLN_modulation.1": ("norm_out.linear",),
}
_DOUBLE = {
    "img_mod.linear": ("norm1.linear",),
    "img_attn_qkv": tuple(f"attn.{part}" for part in _QKV),
    "img_attn_q_norm": ("attn.norm_q",),
    "img_attn_k_norm": ("attn.norm_k",),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp.fc1": ("ff.net.0.proj",),
    "img_mlp.fc2": ("ff.net.2",),
    "txt_mod.linear": ("norm1_context.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_q_norm": ("attn.norm_added_q",),
    "txt_attn_k_norm": ("attn.norm_added_k",),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp.fc1": ("ff_context.net.0.proj",),
    "txt_mlp.fc2": ("ff_context.net.2",),
}
_SINGLE = {
    "linear1": (*(f"attn.{part}" for part in _QKV), "proj_mlp"),
    "linear2": ("proj_out",),
    "q_norm": ("attn.norm_q",),
    "k_norm": ("attn.norm_k",),
    "modulation.linear": ("norm.linear",),
}
_BLOCKS = (
    ("txt_in.individual_token_refiner.blocks.#.", "context_embedder.token_refiner.refiner_blocks.#.", _REFINER),
    ("double_blocks.#.", "transformer_blocks.#.", _DOUBLE),
    ("single_blocks.#.", "single_transformer_blocks.#.", _SINGLE),
)
#: Official module to its diffusers modules, with # for a block's number.
MODULES: dict[str, tuple[str, ...]] = {
    **{
        official: (other,) for official, other in (_EMBEDDERS | _SWAPPED | dict(zip(_SAME, _SAME, strict=True))).items()
    },
    **{
        ours + module: tuple(theirs + part for part in parts)
        for ours, theirs, table in _BLOCKS
        for module, parts in table.items()
    },
}
_OFFICIAL = {part: module for module, parts in MODULES.items() for part in parts}
_NUMBER = re.compile(r"(?<=blocks\.)\d+(?=\.)")


def is_diffusers(source: Source) -> bool:
    return "x_embedder.proj.weight" in source.entries


def diffusers_keys(key: str) -> tuple[str, ...]:
    """The diffusers keys of an official one, in the order of their rows."""
    module, number, ending = _split(key)
    if module not in MODULES:
        raise KeyError(key)
    return tuple(f"{part.replace('#', number)}.{ending}" for part in MODULES[module])


def is_swapped(key: str) -> bool:
    """Whether the two halves of an official tensor are exchanged in diffusers."""
    return key.rpartition(".")[0] in _SWAPPED


def official_source(source: Source) -> Source:
    """A diffusers checkpoint under the official keys; keys that the layout does not know stay as they are."""
    parts: dict[str, tuple[str, ...]] = {}
    for key in source.entries:
        module, number, ending = _split(key)
        official = f"{_OFFICIAL[module].replace('#', number)}.{ending}" if module in _OFFICIAL else key
        parts[official] = diffusers_keys(official) if module in _OFFICIAL else (key,)
    for official, wanted in parts.items():
        absent = [key for key in wanted if key not in source.entries]
        if absent:
            raise WeightsError(
                f"{source.name} lacks {', '.join(absent)}, a part of {official}",
                field="weights.dit",
                remedy="fetch the whole folder",
            )
    entries = {official: _joined([source.entries[key] for key in keys]) for official, keys in parts.items()}

    def read(official: str) -> Tensor:
        found = [source.read(key) for key in parts[official]]
        return _swapped(found[0]) if is_swapped(official) else found[0] if len(found) == 1 else torch.cat(found)

    return Source(source.name, entries, read)


def diffusers_source(source: Source) -> Source:
    """An official checkpoint under the keys of diffusers."""
    whole: dict[str, tuple[str, slice]] = {}
    entries: dict[str, Entry] = {}
    for official, entry in source.entries.items():
        keys = diffusers_keys(official)
        for key, (start, stop) in zip(keys, part_rows(source.entries, official, len(keys)), strict=True):
            whole[key] = official, slice(start, stop)
            entries[key] = replace(entry, shape=(stop - start, *entry.shape[1:]))

    def read(key: str) -> Tensor:
        official, rows = whole[key]
        return _swapped(source.read(official)) if is_swapped(official) else source.read(official)[rows]

    return Source(source.name, entries, read)


def part_rows(entries: Mapping[str, Entry], official: str, parts: int) -> list[tuple[int, int]]:
    """First and last-but-one row of each part of a fused tensor: q, k and v of equal size, then what is left."""
    rows = entries[official].shape[0]
    if parts != len(_QKV) + 1:
        return list(pairwise(range(0, rows + 1, rows // parts)))
    hidden = entries["img_in.proj.bias"].shape[0]
    return list(pairwise(accumulate([0, *[hidden] * len(_QKV), rows - len(_QKV) * hidden])))


def _split(key: str) -> tuple[str, str, str]:
    """Module with # for a block's number, that number (or nothing), and weight or bias."""
    module, _, ending = key.rpartition(".")
    number = _NUMBER.search(module)
    return _NUMBER.sub("#", module), number[0] if number else "", ending


def _joined(parts: list[Entry]) -> Entry:
    return replace(parts[0], shape=(sum(part.shape[0] for part in parts), *parts[0].shape[1:]))


def _swapped(tensor: Tensor) -> Tensor:
    """The halves of the first dimension exchanged."""
    return torch.cat(tensor.chunk(2)[::-1])

"""Every key and shape of the real-size transformer, and of its diffusers layout, on the meta device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from gamecraft_core.families.hunyuan_video import build_model
from gamecraft_core.weights.diffusers import diffusers_keys, diffusers_source, is_swapped, official_source, part_rows
from gamecraft_core.weights.source import Entry, Source
from tests.parity.check import Case, Check
from tests.parity.golden import Folder
from tests.parity.models import preset

NAME = "key_map_official_to_diffusers.json"
#: The real model's sizes, but for its width.
REAL = {
    "num_heads": 24,
    "depth_double_blocks": 20,
    "depth_single_blocks": 40,
    "rope_dim_list": (16, 56, 56),
    "text_states_dim": 4096,
    "text_states_dim_2": 768,
    "guidance_embed": True,
}


def cases(folder: Folder, name: str) -> Iterator[Case]:
    stored = folder.json(name)
    yield Case("key_map/official", partial(_official, stored))
    yield Case("key_map/diffusers", partial(_diffusers, stored))
    yield Case("key_map/and_back", partial(_and_back, stored))


@cache
def _source(hidden: int) -> Source:
    return unreadable(build_model(preset(dit={"hidden_size": hidden, **REAL}), "meta", torch.bfloat16))


def unreadable(model: nn.Module) -> Source:
    """A model on the meta device as a checkpoint that has names and shapes alone."""
    entries = {key: Entry(tuple(value.shape), value.dtype, "meta") for key, value in model.state_dict().items()}
    return Source("meta", entries, lambda key: torch.empty(entries[key].shape, dtype=entries[key].dtype, device="meta"))


def _official(stored: dict[str, Any], check: Check) -> None:
    ours = {key: list(entry.shape) for key, entry in _source(stored["hidden"]).entries.items()}
    same_shapes(ours, {key: one["shape"] for key, one in stored["keys"].items()}, check)
    check.equal("official_tensors", len(ours), stored["official_tensors"])
    check.equal("parameters", sum(math.prod(shape) for shape in ours.values()), stored["parameters"])


def _diffusers(stored: dict[str, Any], check: Check) -> None:
    """Each official tensor goes where the stored map says, by the operation it says."""
    official = _source(stored["hidden"])
    wrong = [key for key, one in stored["keys"].items() if _moves(official, key) != [_move(to) for to in one["to"]]]
    check.equal("keys that go elsewhere", wrong, [])
    made = diffusers_source(official)
    check.equal("diffusers_tensors", len(made.entries), stored["diffusers_tensors"])
    check.equal("names", set(made.entries), {to["key"] for one in stored["keys"].values() for to in one["to"]})


def _and_back(stored: dict[str, Any], check: Check) -> None:
    official = _source(stored["hidden"])
    back = official_source(diffusers_source(official))
    shapes = {key: list(entry.shape) for key, entry in back.entries.items()}
    same_shapes(shapes, {key: one["shape"] for key, one in stored["keys"].items()}, check)
    some = [key for key in back.entries if key.startswith(("double_blocks.0.", "single_blocks.0.", "final_layer."))]
    check.equal("read", [key for key in some if list(back.read(key).shape) != shapes[key]], [])


def _moves(source: Source, official: str) -> list[tuple[Any, ...]]:
    keys = diffusers_keys(official)
    if is_swapped(official):
        return [(keys[0], "swap_halves")]
    if len(keys) == 1:
        return [(keys[0], "copy")]
    rows = part_rows(source.entries, official, len(keys))
    return [(key, "rows", *span) for key, span in zip(keys, rows, strict=True)]


def _move(to: dict[str, Any]) -> tuple[Any, ...]:
    return (to["key"], to["op"], *to.get("rows", ()))


def same_shapes(ours: dict[str, list[int]], stored: dict[str, list[int]], check: Check) -> None:
    check.equal("keys that differ", sorted(ours.keys() ^ stored.keys()), [])
    check.equal("shapes that differ", [key for key in ours.keys() & stored.keys() if ours[key] != stored[key]], [])

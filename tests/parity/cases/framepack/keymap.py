"""Keys and shapes of the published layout, both ways: those of the stored tiny weights, and the real-size model's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import torch

from gamecraft_core.families.framepack import build_model
from gamecraft_core.weights.diffusers import diffusers_source, official_source
from gamecraft_core.weights.files import open_safetensors
from gamecraft_core.weights.source import Source
from tests.parity.cases.framepack.models import beside, settings
from tests.parity.cases.hunyuan import keymap
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden
from tests.parity.models import preset

#: What the fact sheet says of the real model, and the layers that it has beside HunyuanVideo's.
_TENSORS, _PARAMETERS = 1274, 12_874_314_816
_WIDTH, _IMAGE_WIDTH = 3072, 1152
_OWN = {
    "clean_x_embedder.proj": (_WIDTH, 16, 1, 2, 2),
    "clean_x_embedder.proj_2x": (_WIDTH, 16, 2, 4, 4),
    "clean_x_embedder.proj_4x": (_WIDTH, 16, 4, 8, 8),
    "image_projection.up": (3 * _WIDTH, _IMAGE_WIDTH),
    "image_projection.down": (_WIDTH, 3 * _WIDTH),
}


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    yield Case("key_map", partial(_tiny, folder))
    yield Case("key_map_real", partial(_real, folder))
    yield Case("key_map_real_and_back", _and_back)


@cache
def _source() -> Source:
    sizes = {"hidden_size": _WIDTH, "image_dim": _IMAGE_WIDTH, **keymap.REAL}
    return keymap.unreadable(build_model(preset(dit=sizes), "meta", torch.bfloat16))


def _shapes(source: Source) -> dict[str, list[int]]:
    return {key: list(entry.shape) for key, entry in source.entries.items()}


def _tiny(folder: Folder, check: Check) -> None:
    """The stored file is what a model of these sizes is stored as, and is read as that model."""
    chosen = settings(folder)
    model = keymap.unreadable(build_model(chosen, "meta", torch.float32))
    stored = open_safetensors(Path(chosen.weights.dit or ""), "weights.dit")
    keymap.same_shapes(_shapes(diffusers_source(model)), _shapes(stored), check)
    keymap.same_shapes(_shapes(official_source(stored)), _shapes(model), check)


def _real(folder: Folder, check: Check) -> None:
    """As many tensors and parameters as published; names are HunyuanVideo's in this layout, and five layers' own."""
    made = _shapes(diffusers_source(_source()))
    check.equal("tensors", len(made), _TENSORS)
    check.equal("parameters", sum(math.prod(shape) for shape in made.values()), _PARAMETERS)
    own = {f"{layer}.weight": list(shape) for layer, shape in _OWN.items()}
    own |= {f"{layer}.bias": [shape[0]] for layer, shape in _OWN.items()}
    check.equal("own layers", {key: made.get(key) for key in own}, own)
    if (beside(folder).path / keymap.NAME).is_file():
        stored = beside(folder).json(keymap.NAME)["keys"]
        check.equal("names", set(made) - set(own), {to["key"] for one in stored.values() for to in one["to"]})


def _and_back(check: Check) -> None:
    official, shapes = _source(), _shapes(_source())
    back = official_source(diffusers_source(official))
    keymap.same_shapes(_shapes(back), shapes, check)
    some = [key for key in shapes if key.startswith(("double_blocks.0.", "single_blocks.0.", "clean_", "image_"))]
    check.equal("read", [key for key in some if list(back.read(key).shape) != shapes[key]], [])

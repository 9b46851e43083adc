"""The two text models, built from their folders with only the parts that are read.

Of LLaVA: the token embedding and all but the last layers of its language model; no final norm, no logits, no vision
tower. Of CLIP: the text half. Weights come from the folder's safetensors; with random weights in the preset, a folder
without any gets seeded draws.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.preset import Preset
from gamecraft_core.weights.files import has_safetensors, open_safetensors
from gamecraft_core.weights.fill import fill
from gamecraft_core.weights.random_init import fill_random
from gamecraft_core.weights.readers import local, pick_text
from gamecraft_core.weights.source import Source

#: Where the language model's keys begin in the published layouts, oldest first.
_LLM_PREFIXES = ("language_model.model.", "model.language_model.", "model.", "")
_CLIP_PREFIXES = ("text_model.", "")


def build_llm(preset: Preset, device: torch.device) -> nn.Module:
    """The language model cut after its used layers: its last hidden state is the wanted one."""
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaModel, LlamaRotaryEmbedding

    folder = local(preset.text.llm, "text.llm", pick_text)
    values = _text_config(folder, "text.llm")
    config = LlamaConfig(**values)
    layers = (config.num_hidden_layers or 0) - preset.text.skip_layers
    if layers < 1:
        raise WeightsError(
            f"{folder} has {config.num_hidden_layers} layers", field="text.skip_layers", remedy="skip fewer"
        )
    config.num_hidden_layers = layers
    with torch.device("meta"):
        model: nn.Module = LlamaModel(config)
    model.norm = nn.Identity()
    model.rotary_emb = LlamaRotaryEmbedding(config)  # its table is in no checkpoint

    def keep(key: str) -> bool:
        if key.startswith("layers."):
            return int(key.split(".")[1]) < layers
        return key.startswith("embed_tokens.")

    _fill(preset, folder, model, "text.llm", _LLM_PREFIXES, "embed_tokens.weight", keep)
    return model.to(device)


def build_clip(preset: Preset, device: torch.device) -> nn.Module:
    """CLIP's text model."""
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    folder = local(preset.text.clip, "text.clip", pick_text)
    config = CLIPTextConfig(**_text_config(folder, "text.clip"))
    with torch.device("meta"):
        model: nn.Module = CLIPTextModel(config)
    positions = torch.arange(config.max_position_embeddings)[None]
    model.get_submodule("embeddings").register_buffer("position_ids", positions, persistent=False)

    def keep(key: str) -> bool:
        return key.startswith(("embeddings.", "encoder.", "final_layer_norm.")) and not key.endswith(".position_ids")

    _fill(preset, folder, model, "text.clip", _CLIP_PREFIXES, "embeddings.token_embedding.weight", keep)
    return model.to(device)


def _fill(
    preset: Preset,
    folder: Path,
    model: nn.Module,
    field: str,
    prefixes: tuple[str, ...],
    probe: str,
    keep: Callable[[str], bool],
) -> None:
    """Weights for ``model`` from ``folder``, whose keys begin with the prefix that ``probe`` is found under."""
    model.to(getattr(torch, preset.runtime.text_dtype))
    if preset.weights.kind == "random" and not has_safetensors(folder):
        fill_random(model, preset.weights.seed)
        return
    source = open_safetensors(folder, field)
    prefix = _prefix(source, prefixes, probe, field)

    def rename(key: str) -> str | None:
        name = key.removeprefix(prefix)
        return name if key.startswith(prefix) and keep(name) else None

    fill(model, source.renamed(rename), field)


def _prefix(source: Source, prefixes: tuple[str, ...], probe: str, field: str) -> str:
    for prefix in prefixes:
        if prefix + probe in source.entries:
            return prefix
    tried = ", ".join(prefix + probe for prefix in prefixes)
    raise WeightsError(f"{source.name} holds none of the keys {tried}", field=field, remedy="name another folder")


def _text_config(folder: Path, field: str) -> dict[str, Any]:
    """The language half of ``config.json``: its ``text_config``, or all of it where there is none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values: dict[str, Any] = config.get("text_config", config)
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{folder}/config.json cannot be read: {error}", field=field, remedy="fetch it") from error
    return values

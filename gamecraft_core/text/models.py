"""The two text models, built from their folders with only the parts that are read.

Of LLaVA: the token embedding and all but the last layers of its language model; no final norm, no logits, no vision
tower. Of CLIP: the text half. Weights come from the folder's safetensors; with random weights in the preset, a folder
without any gets seeded draws.
"""

from __future__ import annotations

import torch
from torch import nn

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.base.preset import Preset
from gamecraft_core.weights.hub import fill_from_folder, read_config
from gamecraft_core.weights.readers import local, pick_text

#: Where the language model's keys begin in the published layouts, oldest first.
_LLM_PREFIXES = ("language_model.model.", "model.language_model.", "model.", "")
_CLIP_PREFIXES = ("text_model.", "")


def build_llm(preset: Preset, device: torch.device) -> nn.Module:
    """The language model cut after its used layers: its last hidden state is the wanted one."""
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaModel, LlamaRotaryEmbedding

    folder = local(preset.text.llm, "text.llm", pick_text)
    values = read_config(folder, "text.llm")
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

    fill_from_folder(preset, folder, model, "text.llm", _LLM_PREFIXES, "embed_tokens.weight", keep)
    return model.to(device)


def build_clip(preset: Preset, device: torch.device) -> nn.Module:
    """CLIP's text model."""
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    folder = local(preset.text.clip, "text.clip", pick_text)
    config = CLIPTextConfig(**read_config(folder, "text.clip"))
    with torch.device("meta"):
        model: nn.Module = CLIPTextModel(config)
    positions = torch.arange(config.max_position_embeddings)[None]
    model.get_submodule("embeddings").register_buffer("position_ids", positions, persistent=False)

    def keep(key: str) -> bool:
        return key.startswith(("embeddings.", "encoder.", "final_layer_norm.")) and not key.endswith(".position_ids")

    fill_from_folder(preset, folder, model, "text.clip", _CLIP_PREFIXES, "embeddings.token_embedding.weight", keep)
    return model.to(device)

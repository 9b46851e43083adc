"""Memory of the two text models, from their folders' configuration files or, where those are absent, as published."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from gamecraft_core.base.preset import Preset
from gamecraft_core.footprint.role import Role

#: LLaVA-Llama-3-8B (v1.1, transformers layout) and CLIP-L, the models that the real presets name.
_PUBLISHED_LLM = {
    "vocab_size": 128320,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
_PUBLISHED_CLIP = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "max_position_embeddings": 77,
}

TYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def text_role(preset: Preset) -> Role:
    """A text lane: both models, one prompt of the greatest length, and the model that rewrites prompts, if any."""
    llm, clip = llm_sizes(preset), clip_sizes(preset)
    size = TYPE_BYTES[preset.runtime.text_dtype]
    weights = llm_weights(llm, preset.text.skip_layers) + clip_weights(clip) + rewriter_weights(preset)
    tokens = preset.text.crop_start + preset.text.max_tokens
    # The widest moment of a layer: gate, up and their product, beside residual, normed input, queries, keys, values.
    activations = tokens * (3 * llm["intermediate_size"] + 5 * llm["hidden_size"])
    return Role(weights * size, activations * size)


def llm_weights(sizes: dict[str, int], skip_layers: int) -> int:
    """Weights of a Llama without its last ``skip_layers`` layers, final norm and logits."""
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    head_dim = sizes.get("head_dim") or hidden // heads
    attention = 2 * hidden * head_dim * (heads + sizes["num_key_value_heads"])
    layer = attention + 3 * hidden * sizes["intermediate_size"] + 2 * hidden
    return sizes["vocab_size"] * hidden + (sizes["num_hidden_layers"] - skip_layers) * layer


def clip_weights(sizes: dict[str, int]) -> int:
    """Weights of CLIP's text half, without its projection."""
    return (sizes["vocab_size"] + sizes["max_position_embeddings"]) * sizes["hidden_size"] + layers_weights(sizes)


def layers_weights(sizes: dict[str, int]) -> int:
    """Of CLIP's and SigLIP's layers with their biases and norms, and of the norm after them."""
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    return sizes["num_hidden_layers"] * layer + 2 * hidden


def rewriter_weights(preset: Preset) -> int:
    """Weights of the model that rewrites prompts, by its files' headers; none where it is not asked for or not here."""
    from gamecraft_core.weights.files import has_safetensors, open_safetensors

    folder = preset.text.rewrite
    if folder is None or not has_safetensors(Path(folder)):
        return 0
    entries = open_safetensors(Path(folder), "text.rewrite").entries
    return sum(math.prod(entry.shape) for entry in entries.values())


def llm_sizes(preset: Preset) -> dict[str, int]:
    """The language model's configuration, by the names of its own file."""
    return folder_sizes(preset.text.llm, _PUBLISHED_LLM)


def clip_sizes(preset: Preset) -> dict[str, int]:
    return folder_sizes(preset.text.clip, _PUBLISHED_CLIP)


def folder_sizes(folder: str, published: dict[str, int], part: str = "text_config") -> dict[str, int]:
    """The ``part`` of the folder's ``config.json``; what it leaves out, and a missing folder, are as published."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return published
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return published | {key: value for key, value in config.get(part, config).items() if isinstance(value, int)}

"""Work of a text lane for one prompt of the greatest length."""

from __future__ import annotations

from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.work import Work
from gamecraft_core.footprint.text import TYPE_BYTES, clip_sizes, llm_sizes, rewriter_weights, text_role
from gamecraft_core.sampling.guidance import is_guided

_CLIP_TOKENS = 77


def text_work(preset: Preset, *, offloaded: bool = False) -> Work:
    """A session's prompts (with guidance the negative one, too); ``offloaded`` weights come to the device for it."""
    prompts = 2 if is_guided(preset.sampling.guidance) else 1
    weights, rewritten = text_role(preset).weights, rewrite_work(preset)
    llm = llm_work(llm_sizes(preset), preset.text.crop_start + preset.text.max_tokens, preset.text.skip_layers)
    each = llm + clip_work(clip_sizes(preset), _CLIP_TOKENS) + Work(weight_bytes=weights)
    return each * prompts + rewritten + Work(host_bytes=weights if offloaded else 0)


def rewrite_work(preset: Preset) -> Work:
    """A prompt written anew at the greatest length: each token of the answer takes the whole model."""
    weights = rewriter_weights(preset)
    each = Work(matmul=2 * weights, weight_bytes=weights * TYPE_BYTES[preset.runtime.text_dtype])
    return each * preset.text.rewrite_tokens


def llm_work(sizes: dict[str, int], tokens: int, skip_layers: int) -> Work:
    """A Llama without its last ``skip_layers`` layers and without logits."""
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    dim = sizes.get("head_dim") or hidden // heads
    linear = 2 * hidden * dim * (heads + sizes["num_key_value_heads"]) + 3 * hidden * sizes["intermediate_size"]
    layer = Work(matmul=2 * tokens * linear, attention=4 * tokens * tokens * heads * dim)
    return layer * (sizes["num_hidden_layers"] - skip_layers)


def clip_work(sizes: dict[str, int], tokens: int) -> Work:
    """CLIP's text half."""
    hidden = sizes["hidden_size"]
    linear = 4 * hidden * hidden + 2 * hidden * sizes["intermediate_size"]
    layer = Work(matmul=2 * tokens * linear, attention=4 * tokens * tokens * hidden)
    return layer * sizes["num_hidden_layers"]

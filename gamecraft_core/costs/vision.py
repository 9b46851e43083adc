"""Work of the image encoder on one image."""

from __future__ import annotations

from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.text import clip_work
from gamecraft_core.costs.work import Work
from gamecraft_core.footprint.vision import image_tokens, vision_sizes


def vision_work(preset: Preset) -> Work:
    """SigLIP's patches and layers, without its pooling head."""
    sizes, tokens = vision_sizes(preset), image_tokens(preset)
    patches = 2 * tokens * sizes["num_channels"] * sizes["patch_size"] ** 2 * sizes["hidden_size"]
    return clip_work(sizes, tokens) + Work(conv=patches)

"""Memory of the image encoder, from its folder's configuration or, where that is absent, as published."""

from __future__ import annotations

from gamecraft_core.base.preset import Preset
from gamecraft_core.footprint.text import folder_sizes, layers_weights

#: SigLIP so400m of 384 pixels in patches of 14, the encoder that FramePack's presets name.
_PUBLISHED = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 384,
    "patch_size": 14,
}


def vision_weights(sizes: dict[str, int]) -> int:
    """Weights of SigLIP's vision half, without its pooling head."""
    patch = sizes["patch_size"]
    values = sizes["num_channels"] * patch**2 + 1 + (sizes["image_size"] // patch) ** 2
    return values * sizes["hidden_size"] + layers_weights(sizes)


def vision_sizes(preset: Preset) -> dict[str, int]:
    """The encoder's configuration, by the names of its own file; ValueError where the preset has none."""
    vision = preset.vision
    if vision is None:
        raise ValueError(f"preset {preset.name} has no image encoder")
    if vision.path is not None:
        return folder_sizes(vision.path, _PUBLISHED, "vision_config")
    return _PUBLISHED | {key: value for key, value in (vision.random or {}).items() if isinstance(value, int)}


def image_tokens(preset: Preset) -> int:
    """States that the encoder gives of an image; 0 without one."""
    if preset.vision is None:
        return 0
    sizes = vision_sizes(preset)
    return int((sizes["image_size"] // sizes["patch_size"]) ** 2)

"""A small, complete preset for tests, as the values a YAML file would hold. Nothing it names is on disk."""

from __future__ import annotations

import copy
from typing import Any

from gamecraft_core.base.preset import Preset

_VALUES: dict[str, Any] = {
    "name": "tiny",
    "family": "gamecraft",
    "dit": {
        "hidden_size": 32,
        "num_heads": 2,
        "depth_double_blocks": 1,
        "depth_single_blocks": 1,
        "rope_dim_list": [4, 6, 6],
        "text_states_dim": 24,
        "text_states_dim_2": 12,
    },
    "vae": {"block_out_channels": [8, 8, 16, 16]},
    "text": {"llm": "./llm", "clip": "./clip"},
    "weights": {"kind": "random"},
    "sampling": {"steps": 4, "guidance": 1.0, "shift": 5.0, "negative_prompt": "blurry", "seed": 5},
    "video": {"height": 64, "width": 96, "max_pixels": 40_000},
    "control": {"rotation_speed_max": 2.0},
}


def preset_values(name: str = "tiny", **sections: dict[str, Any]) -> dict[str, Any]:
    """The values, with ``sections`` merged in: ``preset_values(vae={"time_compression_ratio": 8})``."""
    values = copy.deepcopy(_VALUES) | {"name": name}
    for section, changes in sections.items():
        values[section] = values.get(section, {}) | changes
    return values


def tiny_preset(name: str = "tiny", **sections: dict[str, Any]) -> Preset:
    return Preset.model_validate(preset_values(name, **sections))

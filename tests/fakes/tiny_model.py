"""A GameCraft model of a few thousand weights, seeded, with orders and prompts to go with it."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch

from gamecraft_core.base.messages import DenoiseOrder, FloatArray, TextPayload, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl
from gamecraft_core.families.gamecraft import GameCraft, build_model

Model = TypeVar("Model", bound=torch.nn.Module)

HEIGHT, WIDTH = 16, 48
LATENT = (HEIGHT // 8, WIDTH // 8)


def tiny_preset(**dit: Any) -> Preset:
    """Six heads and three tokens a latent frame, so that neither heads nor tokens divide among four ranks."""
    sizes = {
        "hidden_size": 48,
        "num_heads": 6,
        "depth_double_blocks": 2,
        "depth_single_blocks": 2,
        "rope_dim_list": (2, 2, 4),
        "text_states_dim": 20,
        "text_states_dim_2": 12,
    }
    return Preset.model_validate(
        {
            "name": "tiny",
            "family": "gamecraft",
            "dit": sizes | dit,
            "vae": {"block_out_channels": [8, 8]},
            "text": {"llm": "unused", "clip": "unused"},
            "weights": {"kind": "random"},
            "sampling": {"steps": 3, "guidance": 2.0, "shift": 5.0},
            "video": {"height": HEIGHT, "width": WIDTH},
            "runtime": {"dtype": "float32"},
        }
    )


def tiny_model(preset: Preset, seed: int = 7) -> GameCraft:
    return draw_weights(build_model(preset, "cpu", torch.float32), seed)


def draw_weights(model: Model, seed: int) -> Model:
    """Every weight is drawn, those included that start at zero in training, so that no branch is silent."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        spread = 0.1 if weight.dim() < 2 else weight[0].numel() ** -0.5
        weight.normal_(0, spread, generator=generator)
        if "norm" in name or name.endswith(".scale"):
            weight.add_(1)
    return model


def text(seed: int = 3, tokens: int = 7) -> TextPayload:
    """A prompt of ``tokens`` tokens and a shorter negative one."""
    draw = np.random.default_rng(seed)

    def states(count: int) -> TextStates:
        return TextStates(
            states=draw.standard_normal((count, 20), dtype=np.float32), pooled=draw.standard_normal(12, np.float32)
        )

    return TextPayload(positive=states(tokens), negative=states(max(tokens - 3, 1)))


def image_history(seed: int = 5) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((16, 1, *LATENT), dtype=np.float32)


def order(index: int = 0, action: str = "w", **changes: Any) -> DenoiseOrder:
    settings: dict[str, Any] = {
        "session_id": "s",
        "index": index,
        "control": ActionControl(action, 0.5),
        "seed": 11,
        "steps": 3,
        "guidance": 2.0,
        "shift": 5.0,
        "height": HEIGHT,
        "width": WIDTH,
        "chunk_frames": 17,
    }
    return DenoiseOrder(**(settings | changes))

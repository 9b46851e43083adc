"""A HunyuanVideo model of a few thousand weights, seeded, with orders to go with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gamecraft_core.base.messages import DenoiseOrder
from gamecraft_core.base.preset import Preset
from gamecraft_core.families.hunyuan_video import HunyuanVideo, build_model
from tests.fakes.tiny_model import draw_weights, tiny_preset

HEIGHT, WIDTH, FRAMES = 16, 48, 17
#: A whole video has no history.
NONE = np.zeros((16, 0, HEIGHT // 8, WIDTH // 8), np.float32)


def video_preset(**dit: Any) -> Preset:
    """The sizes of the tiny GameCraft model: neither its heads nor its tokens divide among four ranks."""
    preset = tiny_preset(guidance_embed=True, **dit)
    return preset.model_copy(update={"family": "hunyuan_video"})


def video_model(preset: Preset, seed: int = 7) -> HunyuanVideo:
    return draw_weights(build_model(preset, "cpu", torch.float32), seed)


def video_order(**changes: Any) -> DenoiseOrder:
    settings: dict[str, Any] = {
        "session_id": "s",
        "index": 0,
        "control": None,
        "seed": 11,
        "steps": 3,
        "guidance": 1.0,
        "shift": 7.0,
        "height": HEIGHT,
        "width": WIDTH,
        "chunk_frames": FRAMES,
    }
    return DenoiseOrder(**(settings | changes))

"""HunyuanVideo models of a few thousand weights, seeded, with orders to go with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gamecraft_core.base.messages import DenoiseOrder, FloatArray
from gamecraft_core.base.preset import Preset
from gamecraft_core.families import hunyuan_video_i2v
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


def i2v_preset(**dit: Any) -> Preset:
    return video_preset(**dit).model_copy(update={"family": "hunyuan_video_i2v"})


def i2v_model(preset: Preset, seed: int = 7) -> HunyuanVideo:
    return draw_weights(hunyuan_video_i2v.build_model(preset, "cpu", torch.float32), seed)


def start_image(seed: int = 5) -> FloatArray:
    """An image's latents, float32 [16, 1, h, w]."""
    shape = (16, 1, HEIGHT // 8, WIDTH // 8)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


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

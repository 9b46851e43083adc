"""A FramePack model of a few thousand weights, seeded, with orders and a start to go with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gamecraft_core.base.messages import DenoiseOrder, StartPayload
from gamecraft_core.base.preset import Preset, VideoConfig
from gamecraft_core.base.spec import Layout
from gamecraft_core.families.framepack import FramePack, build_model
from tests.fakes.tiny_model import HEIGHT, LATENT, WIDTH, draw_weights, tiny_preset

WINDOW, SECTIONS, SIGHT = 3, 3, 10


def pack_preset(layout: Layout = "inverted", **dit: Any) -> Preset:
    """Six heads and 21 packed tokens, so that neither divides among four ranks."""
    preset = tiny_preset(guidance_embed=True, **({"image_dim": SIGHT} | dit))
    video = VideoConfig(height=HEIGHT, width=WIDTH, fps=30, chunk_frames=4 * WINDOW, chunks=SECTIONS, layout=layout)
    return preset.model_copy(update={"family": "framepack", "video": video})


def pack_model(preset: Preset, seed: int = 7) -> FramePack:
    return draw_weights(build_model(preset, "cpu", torch.float32), seed)


def pack_start(seed: int = 5) -> StartPayload:
    draw = np.random.default_rng(seed)
    return StartPayload(
        draw.standard_normal((16, 1, *LATENT), np.float32), draw.standard_normal((5, SIGHT), np.float32)
    )


def section_order(index: int = 0, **changes: Any) -> DenoiseOrder:
    settings: dict[str, Any] = {
        "session_id": "s",
        "index": index,
        "control": None,
        "seed": 11,
        "steps": 4,
        "guidance": 1.0,
        "shift": 1.6,
        "height": HEIGHT,
        "width": WIDTH,
        "chunk_frames": 4 * WINDOW,
        "chunks": SECTIONS,
        "embedded_guidance": 10.0,
    }
    return DenoiseOrder(**(settings | changes))

"""HunyuanVideo text-to-video: a whole video from noise and a prompt, as one chunk without history.

The model is told its guidance (embedded guidance), so that one pass a step is the rule; guidance above 1 with a
negative prompt comes on top, and then both branches are told the same embedded one.
"""

from __future__ import annotations

import torch

from gamecraft_core.base.messages import DenoiseOrder
from gamecraft_core.base.preset import DitConfig, Preset
from gamecraft_core.dit.stream import Grid
from gamecraft_core.dit.trunk import Trunk
from gamecraft_core.families.denoiser import Denoiser, unfilled
from gamecraft_core.timeline.whole_video import plan_video


class HunyuanVideo(Trunk):
    """The published model: its state dict's keys and shapes are the official ones."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__(config, in_channels=config.in_channels)


def build_model(preset: Preset, device: torch.device | str, dtype: torch.dtype) -> HunyuanVideo:
    """A model whose weights are still to be filled: on ``meta`` without storage, elsewhere with undefined values."""
    with torch.device("meta"):
        model = HunyuanVideo(preset.dit).to(dtype)
    return unfilled(model, device)


class HunyuanVideoDenoiser(Denoiser[HunyuanVideo]):
    """Whole videos from noise: ``chunk_frames`` are all of a video's, and the history has none."""

    build_model = staticmethod(build_model)

    def _planned(self, order: DenoiseOrder, history: int) -> tuple[int, Grid]:
        return 0, plan_video(order.chunk_frames, order.height, order.width)

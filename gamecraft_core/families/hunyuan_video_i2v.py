"""HunyuanVideo image-to-video, experimental: a whole video of which the image is the first latent frame.

The image enters as GameCraft's history does, beside the noisy latents and clean at every step; all else is the
text-to-video family's. No reference numbers exist: results are known to repeat and to agree among groups of any size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import DenoiseOrder, FloatArray, StartPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.stream import Grid, Stream
from gamecraft_core.families import hunyuan_video
from gamecraft_core.families.denoiser import TokensAt
from gamecraft_core.families.history import input_channels, tokens_after


def build_model(preset: Preset, device: torch.device | str, dtype: torch.dtype) -> hunyuan_video.HunyuanVideo:
    """The text-to-video model with a wider patch embedding, its weights still to be filled."""
    dit = preset.dit.model_copy(update={"in_channels": input_channels(preset.dit)})
    return hunyuan_video.build_model(preset.model_copy(update={"dit": dit}), device, dtype)


class ImageToVideoDenoiser(hunyuan_video.HunyuanVideoDenoiser):
    """Whole videos after an image: ``chunk_frames`` are all of a video's, the image's own among them."""

    build_model = staticmethod(build_model)

    def _planned(self, order: DenoiseOrder, history: int) -> tuple[int, Grid]:
        _, (latents, height, width) = super()._planned(order, history)
        if latents < 2:
            raise BadInput("a video of one frame is the image itself", field="frames", remedy="give 5 or more")
        return 1, (latents - 1, height, width)

    def _patches(self, past: Tensor, blank: Tensor, stream: Stream) -> TokensAt:
        return tokens_after(self.model, past, blank, stream, self._config.patch_size)

    def _payload(
        self, order: DenoiseOrder, history: FloatArray, start: StartPayload | None, latents: FloatArray
    ) -> FloatArray:
        """All latents, the image's first."""
        return np.concatenate([history, latents], axis=1)

"""HunyuanVideo image-to-video, experimental: a whole video of which the image is the first latent frame.

The image enters as GameCraft's history does, beside the noisy latents and clean at every step; all else is the
text-to-video family's. No reference numbers exist: results are known to repeat and to agree among groups of any size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import DenoiseOrder, FloatArray, StartPayload, TextPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.stream import Grid, Stream
from gamecraft_core.families import hunyuan_video
from gamecraft_core.families.history import ChunkTokens, input_channels
from gamecraft_core.sampling.denoise import OnStep


def build_model(preset: Preset, device: torch.device | str, dtype: torch.dtype) -> hunyuan_video.HunyuanVideo:
    """The text-to-video model with a wider patch embedding, its weights still to be filled."""
    dit = preset.dit.model_copy(update={"in_channels": input_channels(preset.dit)})
    return hunyuan_video.build_model(preset.model_copy(update={"dit": dit}), device, dtype)


class ImageToVideoDenoiser(hunyuan_video.HunyuanVideoDenoiser):
    """Whole videos after an image: ``chunk_frames`` are all of a video's, the image's own among them."""

    build_model = staticmethod(build_model)

    def denoise(
        self,
        order: DenoiseOrder,
        text: TextPayload,
        history: FloatArray | None,
        start: StartPayload | None = None,
        *,
        on_step: OnStep | None = None,
        noise: FloatArray | None = None,
    ) -> FloatArray:
        """All latents [16, T, h, w], the first of which is ``history`` [16, 1, h, w]; ``noise`` is of the others."""
        if history is None:
            raise ValueError("a video of this family begins from an image's latents")
        made = super().denoise(order, text, history, start, on_step=on_step, noise=noise)
        return np.concatenate([history, made], axis=1)

    def _planned(self, order: DenoiseOrder, history: int) -> tuple[int, Grid]:
        _, (latents, height, width) = super()._planned(order, history)
        if latents < 2:
            raise BadInput("a video of one frame is the image itself", field="frames", remedy="give 5 or more")
        return 1, (latents - 1, height, width)

    def _patches(self, past: Tensor, blank: Tensor, stream: Stream) -> Callable[[Tensor], Tensor]:
        return ChunkTokens(self.model, past, blank, stream, self._config.patch_size).at

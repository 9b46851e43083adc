"""The pixels that a FramePack section settles, from its payload and the start alone.

Nothing is kept between sections: of the decode before this one, what the cross-fade needs is made again, by the tiles
that it needs, so any lane has the bits that one lane has which makes the whole video.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.base.messages import DecodeOrder, FloatArray, StartPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.timeline.fades import Clip, settled
from gamecraft_core.timeline.sections import window_of
from gamecraft_core.vae.codec import Frames, VaeCodec


class SectionPainter:
    """Cross-fades a section with the one before it, where neither changes any more."""

    def __init__(self, preset: Preset, codec: VaeCodec) -> None:
        self._codec = codec
        self._layout = preset.video.layout
        self._window = window_of(preset.video.chunk_frames)

    @torch.inference_mode()
    def frames(self, order: DecodeOrder, latents: FloatArray, start: StartPayload | None = None) -> Frames:
        if start is None:
            raise ValueError("a section is decoded with the start")
        pixels = self.pixels(order.index, order.chunks, latents, start.latents)
        if pixels is None:
            return np.zeros((0, order.height, order.width, 3), np.uint8)
        levels = pixels.clamp_(-1.0, 1.0).mul_(127.5).add_(127.5).to(torch.uint8)
        return levels.permute(1, 2, 3, 0).contiguous().cpu().numpy()

    def newest(self, latents: FloatArray) -> FloatArray:
        return latents[:, : self._window] if self._layout == "inverted" else latents[:, -self._window :]

    @torch.inference_mode()
    def pixels(self, index: int, sections: int, latents: FloatArray, start: FloatArray) -> Tensor | None:
        """What section ``index`` settles, float32 [3, F, H, W] in about -1..1; None where that is nothing yet.

        ``latents`` are its payload, ``start`` the start's.
        """
        plan = settled(self._layout, self._window, index, sections)
        made: Tensor | None = None
        for clip in plan.clips:
            part = self._codec.pixels(_latents(clip, latents, start), clip.wanted)
            made = part if made is None else _joined(made, part, plan.overlap)
        return made


def _latents(clip: Clip, latents: FloatArray, start: FloatArray) -> FloatArray:
    """What is decoded together."""
    chosen = latents[:, slice(*clip.latents)]
    return np.concatenate([start, chosen], axis=1) if clip.starts else chosen


def _joined(earlier: Tensor, later: Tensor, overlap: int) -> Tensor:
    """Frames [3, F, H, W] of both, over the ``overlap`` of which the earlier fade out: from all to nothing of them."""
    weight = torch.linspace(1.0, 0.0, overlap, device=earlier.device)[:, None, None]
    faded = earlier[:, -overlap:] * weight + later[:, :overlap] * (1.0 - weight)
    return torch.cat([earlier[:, :-overlap], faded, later[:, overlap:]], dim=1)

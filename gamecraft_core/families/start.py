"""What an encode lane makes of the pixels that a session begins from: the history of its first chunk."""

from __future__ import annotations

from typing import Protocol

import torch

from gamecraft_core.base.messages import EncodeOrder, FloatArray, StartPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.media.image import Scaling
from gamecraft_core.vae.codec import Frames, VaeCodec


class Starter(Protocol):
    """What ``Family.starter`` names; built once a lane, before any order.

    ``scaling`` is how pictures are brought to the order's size before it sees them.
    """

    scaling: Scaling

    def __init__(self, preset: Preset, codec: VaeCodec, device: torch.device) -> None: ...

    def of_image(self, pixels: Frames, order: EncodeOrder) -> FloatArray | StartPayload:
        """The payload of one image [H, W, 3] of the order's size."""

    def of_clip(self, pixels: Frames, order: EncodeOrder) -> FloatArray | StartPayload:
        """The payload of a clip's last frames [F, H, W, 3]; called in families that start from a video only."""


class HistoryStarter:
    """The start's latents [16, T, h, w], which the first chunk continues as it would another chunk's."""

    scaling: Scaling = "bilinear"

    def __init__(self, preset: Preset, codec: VaeCodec, device: torch.device) -> None:
        self._codec = codec

    def of_image(self, pixels: Frames, order: EncodeOrder) -> FloatArray:
        return self._codec.encode_image(pixels, order.seed)

    def of_clip(self, pixels: Frames, order: EncodeOrder) -> FloatArray:
        return self._codec.encode_clip(pixels, order.seed)

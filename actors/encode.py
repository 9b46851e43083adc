"""The encode lane: a start image or clip to history latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.role import Role, answering
from gamecraft_core.base.inputs import read_bytes
from gamecraft_core.base.messages import EncodeOrder, FloatArray, Receipt
from gamecraft_core.base.preset import Preset

_MAX_IMAGE_BYTES = 64 << 20
_MAX_VIDEO_BYTES = 1 << 30
_MAX_PIXELS = 64_000_000


class EncodeActor(Role):
    """Holds a VAE for its encoder; reads, bounds and crops what the session starts from."""

    def __init__(self, lane: str, preset: Preset, threads: int | None, store_options: Mapping[str, Any]) -> None:
        super().__init__("encode", lane)
        self._preset = preset
        self._threads = threads
        self._options = dict(store_options)

    def warm(self) -> dict[str, Any]:
        from actors import models
        from gamecraft_core.weights.remote import localised

        preset = localised(self._preset, self._options, "weights.vae")
        self._codec = models.vae_codec(preset, models.prepare(preset, self._threads))
        video = self._preset.video
        self._codec.encode_image(np.zeros((video.height, video.width, 3), np.uint8), 0)
        return self.ping()

    @answering
    def run(self, order: EncodeOrder) -> tuple[Receipt, FloatArray]:
        def work() -> tuple[FloatArray, dict[str, Any]]:
            latents = self._image(order) if order.start.kind == "image" else self._clip(order)
            return latents, {"payload_bytes": latents.nbytes}

        return self.carry(order, work)

    def _image(self, order: EncodeOrder) -> FloatArray:
        from gamecraft_core.media.image import cover_crop, read_image

        data = read_bytes(order.start.uri, "image", max_bytes=_MAX_IMAGE_BYTES, options=self._options)
        pixels = cover_crop(read_image(data, max_pixels=_MAX_PIXELS), order.height, order.width)
        return self._codec.encode_image(pixels, order.seed)

    def _clip(self, order: EncodeOrder) -> FloatArray:
        from gamecraft_core.media.clip import read_last_frames
        from gamecraft_core.media.image import cover_crop

        data = read_bytes(order.start.uri, "video", max_bytes=_MAX_VIDEO_BYTES, options=self._options)
        frames = read_last_frames(data, order.chunk_frames, max_pixels=_MAX_PIXELS)
        cropped = np.stack([cover_crop(frame, order.height, order.width) for frame in frames])
        return self._codec.encode_clip(cropped, order.seed)

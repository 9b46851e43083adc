"""The encode lane: a start image or clip to history latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.role import Role, answering
from gamecraft_core.base.inputs import read_bytes
from gamecraft_core.base.messages import EncodeOrder, FloatArray, Receipt
from gamecraft_core.base.preset import Preset
from gamecraft_core.media import bounds
from gamecraft_core.media.sandbox import Sandbox


class EncodeActor(Role):
    """Holds a VAE for its encoder, and a sandbox that decodes and crops what the session starts from."""

    def __init__(self, lane: str, preset: Preset, threads: int | None, store_options: Mapping[str, Any]) -> None:
        super().__init__("encode", lane)
        self._preset = preset
        self._threads = threads
        self._options = dict(store_options)
        self._sandbox = Sandbox(beat=lambda: self.moved("waits for a start to be decoded"))

    def warm(self) -> dict[str, Any]:
        from actors import models
        from gamecraft_core.weights.remote import localised

        self._sandbox.start()
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
        data = self._read(order, "image", bounds.MAX_IMAGE_BYTES)
        return self._codec.encode_image(self._sandbox.image(data, order.height, order.width), order.seed)

    def _clip(self, order: EncodeOrder) -> FloatArray:
        data = self._read(order, "video", bounds.MAX_CLIP_BYTES)
        frames = self._sandbox.last_frames(data, order.chunk_frames, order.height, order.width)
        return self._codec.encode_clip(frames, order.seed)

    def _read(self, order: EncodeOrder, field: str, max_bytes: int) -> bytes:
        return read_bytes(order.start.uri, field, max_bytes=max_bytes, options=self._options)

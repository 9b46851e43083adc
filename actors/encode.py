"""The encode lane: a start image or clip to history latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.role import Role, answering
from gamecraft_core.base.inputs import read_bytes
from gamecraft_core.base.messages import EncodeOrder, FloatArray, Receipt, StartPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import Start
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
        preset = localised(self._preset, self._options, "weights.vae", "vision.path")
        self._starter = models.starter(preset, models.prepare(preset, self._threads))
        video = self._preset.video
        order = EncodeOrder(
            session_id="warm-up",
            start=Start("image", ""),
            height=video.height,
            width=video.width,
            chunk_frames=video.chunk_frames,
            seed=0,
        )
        self._starter.of_image(np.zeros((video.height, video.width, 3), np.uint8), order)
        return self.ping()

    @answering
    def run(self, order: EncodeOrder) -> tuple[Receipt, FloatArray | StartPayload]:
        def work() -> tuple[FloatArray | StartPayload, dict[str, Any]]:
            payload = self._image(order) if order.start.kind == "image" else self._clip(order)
            return payload, {"payload_bytes": payload.nbytes}

        return self.carry(order, work)

    def _image(self, order: EncodeOrder) -> FloatArray | StartPayload:
        data = self._read(order, "image", bounds.MAX_IMAGE_BYTES)
        pixels = self._sandbox.image(data, order.height, order.width, scaling=self._starter.scaling)
        return self._starter.of_image(pixels, order)

    def _clip(self, order: EncodeOrder) -> FloatArray | StartPayload:
        data = self._read(order, "video", bounds.MAX_CLIP_BYTES)
        frames = self._sandbox.last_frames(data, order.chunk_frames, order.height, order.width)
        return self._starter.of_clip(frames, order)

    def _read(self, order: EncodeOrder, field: str, max_bytes: int) -> bytes:
        return read_bytes(order.start.uri, field, max_bytes=max_bytes, options=self._options)

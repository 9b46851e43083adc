"""What a decode lane makes of a chunk's payload: the pixels that the chunk settles."""

from __future__ import annotations

from typing import Protocol

from gamecraft_core.base.messages import DecodeOrder, FloatArray, StartPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.vae.codec import Frames, VaeCodec


class Painter(Protocol):
    """What ``Family.painter`` names; built once a lane, before any order."""

    def __init__(self, preset: Preset, codec: VaeCodec) -> None: ...

    def frames(self, order: DecodeOrder, latents: FloatArray, start: StartPayload | None = None) -> Frames:
        """The ``order.frames`` frames [F, H, W, 3] that the chunk with the payload ``latents`` settles, maybe none."""

    def newest(self, latents: FloatArray) -> FloatArray:
        """Of a chunk's payload the latents that are its own, for a preview."""


class ChunkPainter:
    """A chunk's own latents become its frames."""

    def __init__(self, preset: Preset, codec: VaeCodec) -> None:
        self._codec = codec

    def frames(self, order: DecodeOrder, latents: FloatArray, start: StartPayload | None = None) -> Frames:
        return self._codec.decode(latents)

    def newest(self, latents: FloatArray) -> FloatArray:
        return latents

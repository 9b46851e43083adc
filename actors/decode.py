"""The decode lane: latents to pixels to an mp4 fragment, in one process: pixels never leave it.

Two orders may be inside at once: while one encodes its video on the CPU, the next uses the VAE. The receipt's
``decoded`` says when the pixels were there (Unix seconds).

Where people watch, the lane also shows latents before they are decoded, beside its orders and without the VAE.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actors.role import Role, answering, current
from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.messages import DecodeOrder, FloatArray, Fragment, Receipt, StartPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.timeline.frames import latent_frames
from gamecraft_core.timeline.spans import overlap_frames

if TYPE_CHECKING:
    from gamecraft_core.vae.preview import Preview

#: Levels of 256 within which a decoder's rounding leaves one colour.
_ONE_COLOUR = 3


class DecodeActor(Role):
    """Holds a VAE for its decoder, and encodes what it decodes."""

    def __init__(self, lane: str, preset: Preset, threads: int | None, store_options: Mapping[str, Any]) -> None:
        super().__init__("decode", lane)
        self._preset = preset
        self._threads = threads
        self._options = dict(store_options)
        self._turn = threading.Lock()
        self._preview: Preview | None = None

    def warm(self) -> dict[str, Any]:
        from actors import models
        from gamecraft_core.weights.remote import localised

        preset = localised(self._preset, self._options, "weights.vae")
        self._codec = models.vae_codec(preset, models.prepare(preset, self._threads))
        self._painter = models.painter(preset, self._codec)
        video = self._preset.video
        length = video.chunk_frames if video.layout == "tiled" else overlap_frames(video.chunk_frames)
        latents = latent_frames(length, "884")
        shape = (self._preset.vae.latent_channels, latents, video.height // 8, video.width // 8)
        order = DecodeOrder(
            session_id="warm-up",
            index=0,
            start_frame=0,
            frames=length,
            height=video.height,
            width=video.width,
            fps=video.fps,
        )
        self._encode(self._codec.decode(np.zeros(shape, np.float32)), order)
        return self.ping()

    def learn_preview(self) -> None:
        """Learn the VAE's colours, once; jobs that nobody watches never ask for it."""
        from gamecraft_core.vae.preview import learn

        with self._turn:
            self._preview = self._preview or learn(self._codec, self._preset.vae)
        self.moved("learnt to preview")

    def preview(self, latents: FloatArray) -> tuple[bytes, int] | None:
        """None before it has learnt."""
        from gamecraft_core.media.jpeg import strip

        if self._preview is None:
            return None
        frames = self._preview.frames(self._painter.newest(latents))
        return strip(frames), len(frames)

    @answering
    def run(
        self, order: DecodeOrder, latents: FloatArray, start: StartPayload | None = None
    ) -> tuple[Receipt, Fragment]:
        self.admit()
        with self._turn:
            started = time.time()
            frames = self._painter.frames(order, latents, start)
            decoded = time.time()
        if self._preset.video.refuse_constant and len(frames) and is_constant(frames):
            raise Poisoned(
                f"chunk {order.index}: every frame is of one colour",
                remedy="check the weights, or set video.refuse_constant=false if such pictures are wanted",
            )
        fragment = self._encode(frames, order)
        if (span := current()) is not None:
            span.child("pixels", started).end(decoded)
            span.child("encode video", decoded).end()
        facts = {"payload_bytes": len(fragment.data), "frames": fragment.frames, "decoded": decoded}
        return self.receipt(order, started, facts), fragment

    @staticmethod
    def _encode(frames: npt.NDArray[np.uint8], order: DecodeOrder) -> Fragment:
        from gamecraft_core.media.fragment import encode_fragment

        if not order.frames:
            return Fragment(b"", 0, 0)
        return encode_fragment(frames, index=order.place, start_frame=order.start_frame, fps=order.fps)


def is_constant(frames: npt.NDArray[np.uint8]) -> bool:
    """Every one of ``frames`` [T, H, W, 3] shows a single colour. A picture is known by its first frame."""
    flat = (frame.reshape(-1, frame.shape[-1]) for frame in frames)
    return all(bool((pixels.max(axis=0) - pixels.min(axis=0) <= _ONE_COLOUR).all()) for pixels in flat)

"""FramePack's chunks: sections whose tokens are as many at any length of the video, and what an image shows."""

from __future__ import annotations

from math import prod

from gamecraft_core.costs.dit import Sequence
from gamecraft_core.costs.family import FamilyWork, Piece
from gamecraft_core.costs.vision import vision_work
from gamecraft_core.costs.work import Work
from gamecraft_core.timeline.fades import settled
from gamecraft_core.timeline.frames import SPATIAL_RATIO
from gamecraft_core.timeline.sections import carried, video_tokens, window_of


class FramePackWork(FamilyWork):
    """Of a section, packed: what it is shown at three scales, its window, and the image's tokens beside the text."""

    @property
    def new(self) -> int:
        return window_of(self.preset.video.chunk_frames)

    @property
    def payload(self) -> int:
        return carried(self.new)

    def rows(self, *, continuing: bool) -> Sequence:
        *shown, own = self._packed()
        return Sequence(sum(shown) + own, own, self.preset.text.max_tokens + self.image_tokens)

    def patches(self, local: int, new: int, steps: int) -> Work:
        """What is shown, the image and a window of zeros are embedded once, on every rank; a step adds its latents."""
        config = self.preset.dit
        far, middle, near, own = self._packed()
        cells = far * 4**3 + middle * 2**3 + near + own + steps * new
        seen = self.image_tokens * 3 * (config.image_dim + config.hidden_size)
        return Work(matmul=2 * config.hidden_size * (cells * config.in_channels * prod(config.patch_size) + seen))

    def decoded(self, index: int, chunks: int) -> tuple[Piece, ...]:
        """Its own latents with those of the section before, and with that one's the frames under the cross-fade."""
        clips = settled(self.preset.video.layout, self.new, index, chunks).clips
        return tuple(Piece(clip.count, clip.wanted) for clip in clips)

    def sight(self) -> Work:
        return vision_work(self.preset)

    def _packed(self) -> tuple[int, int, int, int]:
        video = self.preset.video
        return video_tokens(self.new, video.height // SPATIAL_RATIO, video.width // SPATIAL_RATIO)

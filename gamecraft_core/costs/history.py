"""Families whose model input holds a history beside the noisy latents, whose tokens are embedded once a chunk."""

from __future__ import annotations

from math import prod

from gamecraft_core.base.preset import DitConfig
from gamecraft_core.costs.family import FamilyWork
from gamecraft_core.costs.work import Work


class HistoryWork(FamilyWork):
    """The embedding of history, mask and bias is kept; every step adds that of its latents."""

    def patches(self, local: int, new: int, steps: int) -> Work:
        config = self.preset.dit
        channels = local * (2 * config.in_channels + 1) + steps * new * config.in_channels
        return Work(matmul=2 * config.hidden_size * channels * prod(config.patch_size))


class GameCraftWork(HistoryWork):
    """Chunks under a camera."""

    def conditioning(self) -> Work:
        """The camera encoder over a chunk's Plücker maps, and over the one patch of zeros that history sees."""
        video, config = self.preset.video, self.preset.dit
        down, (_, h, w) = config.camera_down_coef, config.patch_size
        chunk = _camera(config, video.chunk_frames, video.height // down, video.width // down, h * w)
        return chunk + _camera(config, 1, w, w, h * w)

    def added_bytes(self, local: int) -> int:
        """The camera's tokens."""
        return 4 * local * self.preset.dit.hidden_size


class AfterImageWork(HistoryWork):
    """A whole video of which the image is the first latent frame."""

    @property
    def new(self) -> int:
        return super().new - 1

    @property
    def payload(self) -> int:
        return 1 + self.new


def _camera(config: DitConfig, frames: int, height: int, width: int, patch: int) -> Work:
    wide, pixels, out = config.camera_in_channels * config.camera_down_coef**2, height * width, config.in_channels
    first, second = wide // 2, wide // 4
    half = frames // 2 + frames % 2
    quarter = half // 2 + half % 2
    convolved = frames * wide * first + half * first * second + quarter * second * out
    embedded = quarter * out * config.hidden_size  # a value of each pixel of a patch, once
    return Work(conv=2 * pixels * (convolved + embedded))

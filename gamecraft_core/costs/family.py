"""What of a plan is the family's own: how large its chunks are, what it decodes, what work comes on top of the trunk.

``FamilyWork`` describes the plainest family; one that differs names a class derived from it in ``Family.work``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from gamecraft_core.base.family import family_of, load
from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.dit import Sequence
from gamecraft_core.costs.work import Work
from gamecraft_core.footprint.vision import image_tokens
from gamecraft_core.timeline.frames import SPATIAL_RATIO, clip_latents
from gamecraft_core.timeline.spans import Span, span

#: Index and chunks of a session whose chunk in the middle has two before it and two after it.
MIDDLE, MANY = 2, 5


@dataclass(frozen=True, slots=True)
class Piece:
    """So many latent frames decoded together, all their pixel frames or (half open) the ``wanted`` ones."""

    latents: int
    wanted: Span | None = None


class FamilyWork:
    """Chunks of the latents that they are given, then their own, all of them embedded at every step.

    A chunk is given the one before it, and the first one the latents of an image unless sessions begin from nothing.
    ``continuing`` chunks are all but the first; where a session is one whole video, its chunk stands for them.
    """

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.family = family_of(preset.family)

    @property
    def continues(self) -> bool:
        """Whether a session may have more than one chunk."""
        return self.family.length != "frames"

    @property
    def new(self) -> int:
        """Latent frames that a chunk predicts."""
        return clip_latents(self.preset.video.chunk_frames)

    @property
    def payload(self) -> int:
        """Latent frames that a chunk hands on, to the next one and to its decode."""
        return self.new

    def history(self, *, continuing: bool) -> int:
        """Latent frames that a chunk is given of what was before it."""
        if continuing and self.continues:
            return self.payload
        return int("none" not in self.family.starts and not self.family.keeps_start)

    def rows(self, *, continuing: bool) -> Sequence:
        """The tokens of one forward, with a prompt of the greatest length."""
        frames = self.history(continuing=continuing) + self.new
        return Sequence(self.tokens(frames), self.tokens(self.new), self.preset.text.max_tokens)

    def tokens(self, latents: int) -> int:
        """Tokens of so many latent frames of the preset's size."""
        video, (t, h, w) = self.preset.video, self.preset.dit.patch_size
        return latents // t * (video.height // SPATIAL_RATIO // h) * (video.width // SPATIAL_RATIO // w)

    def patches(self, local: int, new: int, steps: int) -> Work:
        """Embedding a chunk's ``local`` tokens on a rank, the last ``new`` of them predicted, for so many forwards."""
        config = self.preset.dit
        return Work(matmul=2 * steps * local * config.in_channels * prod(config.patch_size) * config.hidden_size)

    def conditioning(self) -> Work:
        """What else a chunk's branch of guidance is given before its first step, on every rank."""
        return Work()

    def sight(self) -> Work:
        """What the encoding of a start's image does beside the VAE."""
        return Work()

    @property
    def image_tokens(self) -> int:
        """Tokens beside the text's that say what a start's image shows."""
        return image_tokens(self.preset)

    def added_bytes(self, local: int) -> int:
        """Memory that a branch of guidance keeps for itself beside the prompt's tables, of ``local`` tokens."""
        return 0

    def place(self, *, continuing: bool, chunks: int = MANY) -> tuple[int, int]:
        """(index, of how many) of the chunk that stands for the first of ``chunks``, or for all that continue it.

        That is one in the middle: the last chunk of an overlapping layout settles more than others.
        """
        if chunks == 1 or not self.continues:
            return 0, 1
        return MIDDLE if continuing else 0, MANY

    def settled(self, index: int, chunks: int) -> int:
        """Pixel frames that chunk ``index`` of ``chunks`` settles."""
        video = self.preset.video
        start, end = span(video.layout, video.chunk_frames, chunks, index)
        return end - start

    def decoded(self, index: int, chunks: int) -> tuple[Piece, ...]:
        """What is decoded for them."""
        return (Piece(self.payload),)


def family_work(preset: Preset) -> FamilyWork:
    """What the preset's family names."""
    made: FamilyWork = load(family_of(preset.family).work)(preset)
    return made

"""The plan of a family that makes a whole video at once: one chunk without history, and which sizes it may have.

The causal VAE turns ``4n + 1`` pixel frames of sides divisible by 8 into ``n + 1`` latent frames, and the transformer
takes latents in patches of 2 by 2: so frames are ``4n + 1`` and sides multiples of 16.
"""

from __future__ import annotations

from dataclasses import dataclass

from gamecraft_core.base.errors import BadInput
from gamecraft_core.timeline.frames import SPATIAL_RATIO, clip_latents

#: The longest video that the published models are meant for.
MOST_FRAMES = 129
#: Pixels of a token, each way.
TOKEN_PIXELS = 2 * SPATIAL_RATIO
#: One more than the largest seed.
_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """A whole video of ``frames`` pixel frames; one of a single frame has a prompt template of its own.

    ``latent_shape`` is (T, h, w).
    """

    frames: int
    latent_shape: tuple[int, int, int]

    @property
    def span(self) -> tuple[int, int]:
        """Its pixel frames, half open."""
        return 0, self.frames

    @property
    def still(self) -> bool:
        return self.frames == 1

    @property
    def tokens(self) -> int:
        """Video tokens of the transformer."""
        t, h, w = self.latent_shape
        return t * (h // 2) * (w // 2)


def plan_video(frames: int, height: int, width: int) -> VideoPlan:
    """The plan of ``frames`` pixel frames of ``height`` by ``width``; BadInput naming the field and what is near."""
    if not 1 <= frames <= MOST_FRAMES:
        raise BadInput(f"a video of {frames} frames", field="frames", remedy=f"give 4n+1, from 1 to {MOST_FRAMES}")
    for field, side in (("height", height), ("width", width)):
        if side < TOKEN_PIXELS or side % TOKEN_PIXELS:
            below = max(side // TOKEN_PIXELS, 1) * TOKEN_PIXELS
            near = f"{below} or {below + TOKEN_PIXELS}"
            raise BadInput(f"{side} is no multiple of {TOKEN_PIXELS}", field=field, remedy=f"nearest: {near}")
    return VideoPlan(frames, (clip_latents(frames), height // SPATIAL_RATIO, width // SPATIAL_RATIO))


def video_seeds(seed: int, count: int) -> tuple[int, ...]:
    """The seeds of ``count`` videos of one prompt: each one more than the one before."""
    if count < 1:
        raise BadInput(f"{count} videos a prompt", field="videos", remedy="give 1 or more")
    if not 0 <= seed <= _SEEDS - count:
        raise BadInput(f"{count} seeds from {seed} on do not fit", field="seed", remedy=f"give 0 to {_SEEDS - count}")
    return tuple(range(seed, seed + count))

"""The plan of a family that makes a whole video at once: one chunk without history, and which sizes it may have.

The causal VAE turns ``4n + 1`` pixel frames of sides divisible by 8 into ``n + 1`` latent frames, and the transformer
takes latents in patches of 2 by 2: so frames are ``4n + 1`` and sides multiples of 16.
"""

from __future__ import annotations

from gamecraft_core.base.errors import BadInput
from gamecraft_core.timeline.frames import SPATIAL_RATIO, clip_latents

#: The longest video that the published models are meant for.
MOST_FRAMES = 129
#: Pixels of a token, each way.
TOKEN_PIXELS = 2 * SPATIAL_RATIO


def plan_video(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Latent (T, h, w) of ``frames`` pixel frames of a size; BadInput names the field and what is near."""
    if not 1 <= frames <= MOST_FRAMES:
        raise BadInput(f"a video of {frames} frames", field="frames", remedy=f"give 4n+1, from 1 to {MOST_FRAMES}")
    for field, side in (("height", height), ("width", width)):
        if side < TOKEN_PIXELS or side % TOKEN_PIXELS:
            below = max(side // TOKEN_PIXELS, 1) * TOKEN_PIXELS
            near = f"{below} or {below + TOKEN_PIXELS}"
            raise BadInput(f"{side} is no multiple of {TOKEN_PIXELS}", field=field, remedy=f"nearest: {near}")
    return clip_latents(frames), height // SPATIAL_RATIO, width // SPATIAL_RATIO

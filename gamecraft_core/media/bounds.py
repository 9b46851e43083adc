"""How large what a user starts from may be, and what decoding it may cost: stated here and nowhere else."""

from __future__ import annotations

MAX_IMAGE_BYTES = 64 << 20
MAX_CLIP_BYTES = 512 << 20

#: Of a start image as given; it is scaled to the session's size.
MAX_IMAGE_PIXELS = 64_000_000
#: Of one frame of a clip: cinema 4K. A chunk's worth of them is held at once.
MAX_CLIP_PIXELS = 4096 * 2304
#: Of a whole clip: its end can only be found by decoding all of it.
MAX_CLIP_FRAMES = 20_000

#: Processor seconds for one image and for one clip.
IMAGE_SECONDS = 30
CLIP_SECONDS = 120
#: On a busy machine a processor second takes longer: what the wall clock allows is this many times as much.
WALL_FACTOR = 3
#: Address space of the process that decodes.
MEMORY_BYTES = 4 << 30

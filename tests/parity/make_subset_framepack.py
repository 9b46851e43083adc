"""``python -m tests.parity.make_subset_framepack SOURCE``: trims a full FramePack folder to the one committed here.

What goes is whole cases and frames; every number is still the reference's. Its VAE and text encoders are those of the
HunyuanVideo folder beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.parity.rewrite import Draft, write_subset

TARGET = Path(__file__).resolve().parent / "framepack"
_COPIED = (
    "buckets_and_counts.json",
    "config.json",
    "sampler.json",
    "section_schedule.json",
    "token_table.json",
    "conditioning.safetensors",
    "sampler_io.safetensors",
    "siglip_tiny_weights.safetensors",
    "transformer_tiny_weights.safetensors",
)
#: Of each file what begins so goes.
_DROPPED = {"multi_section": ("std_w9.",), "transformer_tiny_io": ("case1.act.", "case2.act.")}
#: Of a run's stored frames one of so many stays.
_FRAMES = 5


def cut(stem: str, draft: Draft) -> None:
    for name, values in draft.tensors.items():
        if name.endswith(".frame_ids"):
            draft.tensors[name] = values[::_FRAMES]
        elif name.endswith(".pixels"):
            draft.tensors[name] = values[:, :, ::_FRAMES]


if __name__ == "__main__":
    write_subset(Path(sys.argv[1]), TARGET, _COPIED, _DROPPED, cut)

"""``python -m tests.parity.make_subset_hunyuan SOURCE``: trims a full HunyuanVideo folder to the one committed here.

What goes is whole cases and rows; every number is still the reference's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.parity.rewrite import Draft, write_subset

TARGET = Path(__file__).resolve().parent / "hunyuanvideo"
_COPIED = (
    "config.json",
    "scheduler.json",
    "prompt_token_ids.json",
    "key_map_official_to_diffusers.json",
    *(f"{part}_tiny_weights.safetensors" for part in ("dit", "vae", "llm", "clip")),
    "t2v_loop.safetensors",
)
#: Of each file what begins so goes. The run's own video is a decode that is tiled in space and time.
_DROPPED = {
    "dit_tiny_io": ("case0.act.",),
    "text_encode_io": ("image.",),
    "vae_tiny_io": ("decode_plain.", "decode_spatial.", "decode_temporal.", "decode_both.", "encode_plain."),
}


def cut(stem: str, draft: Draft) -> None:
    if stem == "text_encode_io":
        draft.tensors = {name: values[:1] for name, values in draft.tensors.items()}


if __name__ == "__main__":
    write_subset(Path(sys.argv[1]), TARGET, _COPIED, _DROPPED, cut)

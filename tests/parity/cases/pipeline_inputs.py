"""What the whole runs start from: cameras, text, rotary table, the encoded image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import torch

from gamecraft_core.dit.rope import rope_table
from gamecraft_core.timeline.camera import action_rows
from gamecraft_core.timeline.frames import CHUNK_FRAMES, latent_frames
from tests.parity.cases import camera, rope, text
from tests.parity.cases.start import start_cases
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden
from tests.parity.models import tiny_weights

#: Names of tensors that need no comparison.
INPUTS = r"image_u8|posterior\.eps"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for name in file.names("cam_"):
        yield Case(name, partial(_camera, file, name))
    for name in file.names("freqs_"):
        yield Case(name, partial(_table, file, name))
    if file.names("text_states"):
        yield Case("text", partial(_text, folder, file))
    yield from start_cases(folder, file)


def _camera(file: Golden, name: str, check: Check) -> None:
    """Stored rounded to bf16, so equal or wrong."""
    height, width = file.header["size"]
    if name == "cam_uncond_frame":
        made = camera.still_map(height, width)[None]
    else:
        matched = re.fullmatch(r"cam_chunk(\d+)_frames", name)
        if matched is None:
            raise ValueError(f"{name} is no known camera")
        frames = CHUNK_FRAMES[0]
        action, speed = file.header["actions"][int(matched[1])]
        rows = action_rows(action, speed, frames)
        made = camera.maps(rows, frames, height, width)[file.header["cam_frames"]]
    check.tensor(file, name, made.bfloat16()[None], 0.0)


def _table(file: Golden, name: str, check: Check) -> None:
    part, length = name.removeprefix("freqs_").split("_")
    grid = (latent_frames(int(length)), *(side // rope.TOKEN_PIXELS for side in file.header["size"]))
    table = rope_table(grid, tuple(file.header["dit"]["rope_dim_list"]), file.header["rope_theta"])
    check.tensor(file, name, rope.as_stored(table)[part == "sin"], rope.ATOL)


def _text(folder: Folder, file: Golden, check: Check) -> None:
    """The text tensors that the chunk loop was run with, in the order [negative, positive]."""
    paths = tiny_weights(folder, file.header["weights"]).paths
    encoder = text.encoder(folder, paths["llava"], paths["clip"])
    prompts = (file.header["negative_prompt_effective"], file.header["prompt"])
    tokens = file.shape("text_states")[1]
    states, masks = zip(*(text.padded_states(encoder, prompt, tokens) for prompt in prompts), strict=True)
    check.tensor(file, "text_states", torch.stack(states), text.ATOL)
    check.tensor(file, "text_mask", torch.stack(masks), 0.0)
    pooled = [torch.tensor(encoder.encode(prompt).pooled) for prompt in prompts]
    check.tensor(file, "text_states_2", torch.stack(pooled), text.ATOL)

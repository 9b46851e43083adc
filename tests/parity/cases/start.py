"""The start of a session: an image or a clip becomes history latents, with the stored noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gamecraft_core.vae import codec as codec_module
from tests.parity.cases.vae import ATOL
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden
from tests.parity.models import tiny_codec


def start_cases(folder: Folder, file: Golden) -> Iterator[Case]:
    """The encoded image or clip of a file, where it holds one."""
    if "posterior.mean" in file:
        yield Case("posterior", partial(_clip if "video_u8" in file else _image, folder, file))


def _image(folder: Folder, file: Golden, check: Check) -> None:
    codec, pixels = tiny_codec(folder, file.header["weights"]), _pixels(file.given("image_u8"))
    mean, logvar = codec.moments(pixels[None])
    check.tensor(file, "posterior.mean", mean[None], ATOL)
    check.tensor(file, "posterior.logvar", logvar[None], ATOL)
    latents = with_noise(file.given("posterior.eps"), "image_posterior", lambda: codec.encode_image(pixels, seed=0))
    check.tensor(file, "ref_latents", latents, ATOL)


def _clip(folder: Folder, file: Golden, check: Check) -> None:
    """The clip is the first chunk's history; its first frame, encoded alone, the reference."""
    codec, pixels = tiny_codec(folder, file.header["weights"]), _pixels(file.given("video_u8"))
    for name, frames, latents in (
        ("posterior", pixels, "chunk0.in.last_latents"),
        ("ref_posterior", pixels[:1], "chunk0.in.ref_latents"),
    ):
        if not file.names(f"{name}."):
            continue
        mean, logvar = codec.moments(frames)
        check.tensor(file, f"{name}.mean", mean[None], ATOL)
        check.tensor(file, f"{name}.logvar", logvar[None], ATOL)
        noise = file.given(f"{name}.eps")
        made = with_noise(noise, "clip_posterior", partial(codec.encode_clip, frames, seed=0))
        check.tensor(file, latents, made, ATOL)


def _pixels(stored: Tensor) -> npt.NDArray[np.uint8]:
    """[3, ...] as the codec takes it, channels last."""
    return np.ascontiguousarray(stored.movedim(0, -1).numpy())


def with_noise(noise: Tensor, purpose: str, encode: Callable[[], npt.NDArray[np.float32]]) -> Tensor:
    """What ``encode`` gives when its draw for ``purpose`` is the stored noise [1, 16, T, h, w]."""

    def draw(seed: int, index: int, asked: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        if (asked, shape) != (purpose, tuple(noise.shape[1:])):
            raise ValueError(f"a draw of {shape} for {asked}, where {tuple(noise.shape[1:])} for {purpose} is stored")
        return noise[0].numpy()

    with mock.patch.object(codec_module, "draw", draw):
        return torch.from_numpy(encode())[None]

"""The causal VAE alone: every stored encode and decode in its tiling mode."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

from torch import Tensor

from gamecraft_core.vae.model import CausalVae
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden
from tests.parity.models import vae_config

ATOL = 5e-5
#: Names of tensors that need no comparison.
INPUTS = r"sd\..*|video_u8|z"
_TILES = {
    "tile_sample_min_size": "pixels",
    "tile_latent_min_size": "latents",
    "tile_sample_min_tsize": "pixel_frames",
    "tile_latent_min_tsize": "latent_frames",
}


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    if "tile" in file.header:
        yield Case("tile", partial(_tiles, file))
    for case in file.header["cases"]:
        name = f"{'enc' if case['op'] == 'encode' else 'dec'}.{case['mode']}.{case['input']}"
        if file.names(f"{name}."):
            yield Case(name, partial(_encode if case["op"] == "encode" else _decode, file, case, name))


@cache
def _vae(file: Golden) -> CausalVae:
    vae = CausalVae(vae_config(file.header["config"]))
    vae.load_state_dict(file.state_dict())
    return vae


def _in_mode(file: Golden, mode: str) -> CausalVae:
    vae = _vae(file)
    vae.tiling = dataclasses.replace(vae.tiling, space=mode in ("spatial", "both"), time=mode in ("temporal", "both"))
    return vae


def _first(stored: Tensor, what: str) -> Tensor:
    """``full``, or a letter and how many frames: the start of ``stored`` along time."""
    return stored if what == "full" else stored[:, :, : int(what[1:])]


def _tiles(file: Golden, check: Check) -> None:
    tiling = _vae(file).tiling
    for stored, ours in _TILES.items():
        if stored in file.header["tile"]:
            check.equal(stored, getattr(tiling, ours), file.header["tile"][stored])


def _encode(file: Golden, case: dict[str, Any], name: str, check: Check) -> None:
    pixels = _first(file.given("video_u8"), case["input"]).float() / 127.5 - 1
    mean, logvar = _in_mode(file, case["mode"]).encode(pixels)
    check.equal("shape", list(mean.shape), case.get("out", list(mean.shape)))
    check.tensor(file, f"{name}.mean", mean, ATOL)
    check.tensor(file, f"{name}.logvar", logvar, ATOL)


def _decode(file: Golden, case: dict[str, Any], name: str, check: Check) -> None:
    out = _in_mode(file, case["mode"]).decode(_first(file.given("z"), case["input"]))
    check.equal("shape", list(out.shape), case.get("out", list(out.shape)))
    check.tensor(file, f"{name}.frames", out[:, :, case["frames"]], ATOL)
    check.tensor(file, f"{name}.frame_mean", out.mean((1, 3, 4)), ATOL)
    check.tensor(file, f"{name}.frame_absmean", out.abs().mean((1, 3, 4)), ATOL)

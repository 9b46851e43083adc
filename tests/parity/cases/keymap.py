"""Every key and shape of the real-size models, built on the meta device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from gamecraft_core.families.gamecraft import build_model
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.quantise import quantise_model
from tests.parity.check import Case, Check
from tests.parity.golden import Folder
from tests.parity.models import dit_fields, preset, vae_config

PREFIX = "keymap_"


def cases(folder: Folder, name: str) -> Iterator[Case]:
    """The case of one ``keymap_*.json``."""
    stem = name.removesuffix(".json")
    yield Case(stem, partial({"keymap_dit": _dit, "keymap_vae": _vae}[stem], folder))


def _dit(folder: Folder, check: Check) -> None:
    described = folder.json("keymap_dit.json")
    model = build_model(preset(dit=dit_fields(described["config"])), "meta", torch.bfloat16)
    _compare(model, described, check)
    if "fp32_constructed" in described:
        fine = {key for key, value in model.state_dict().items() if value.dtype == torch.float32}
        check.equal("float32 keys that differ", fine ^ set(described["fp32_constructed"]), set())
    if "fp8_linear_modules" in described:
        check.equal("fp8 modules that differ", {*quantise_model(model)} ^ {*described["fp8_linear_modules"]}, set())


def _vae(folder: Folder, check: Check) -> None:
    described = folder.json("keymap_vae.json")
    with torch.device("meta"):
        model = CausalVae(vae_config(described["config"]))
    _compare(model, described, check)


def _compare(model: nn.Module, described: dict[str, dict[str, list[int]]], check: Check) -> None:
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    stored = described["keys"]
    check.equal("keys that differ", sorted(ours.keys() ^ stored.keys()), [])
    check.equal("shapes that differ", [key for key in ours.keys() & stored.keys() if ours[key] != stored[key]], [])
    check.equal("n_keys", len(ours), described["n_keys"])
    check.equal("n_params", sum(math.prod(shape) for shape in ours.values()), described["n_params"])

"""The camera encoder alone, and its pooling over time alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from gamecraft_core.families.camera_net import CameraNet, pool_time
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

ATOL = 1e-5
#: Names of tensors that need no comparison.
INPUTS = r"sd\..*|input\d+|compress_in\d+"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for name in file.names("out"):
        yield Case(name, partial(_zeros if name.startswith("out_zero") else _tokens, file, name))
    for name in file.names("compress_out"):
        yield Case(name, partial(_pooled, file, name))


@cache
def _net(file: Golden) -> CameraNet:
    config = file.header["config"]
    net = CameraNet(
        config["in_channels"],
        config["downscale_coef"],
        config["out_channels"],
        tuple(config["patch_size"]),
        config["hidden_size"],
    )
    net.load_state_dict(file.state_dict(), strict=True)
    return net.requires_grad_(False)


def _clip(file: Golden) -> Tensor:
    """The stored input followed by its time reverse; outputs are for its first frames."""
    (name,) = file.names("input")
    once = file.given(name)[0]
    return torch.cat([once, once.flip(0)])


def _zeros(file: Golden, name: str, check: Check) -> None:
    net, clip = _net(file), _clip(file)
    check.tensor(file, name, net.zero_token().expand(file.shape(name)), ATOL)
    zeros = torch.zeros(int(name.removeprefix("out_zero")), *clip.shape[1:])
    check.tensor(file, name, net(zeros)[None], ATOL)


def _tokens(file: Golden, name: str, check: Check) -> None:
    matched = re.fullmatch(r"out(\d+)(?:_batch(\d+))?", name)
    if matched is None:
        raise ValueError(f"{name} is no known output")
    frames, batch = int(matched[1]), int(matched[2] or 1)
    clips = _clip(file)[: batch * frames].chunk(batch)
    check.tensor(file, name, torch.stack([_net(file)(clip) for clip in clips]), ATOL)


def _pooled(file: Golden, name: str, check: Check) -> None:
    (source,) = file.names("compress_in")
    batch = file.shape(source)[0] // int(source.removeprefix("compress_in"))
    rows = file.given(source)[: batch * int(name.removeprefix("compress_out"))]
    check.tensor(file, name, torch.cat([pool_time(clip) for clip in rows.chunk(batch)]), ATOL)

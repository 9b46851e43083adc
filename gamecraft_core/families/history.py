"""A model input that holds the history beside the noisy latents: history latents (zero on new frames) and a mask.

History frames are fed clean at every step and are never predicted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gamecraft_core.base.preset import DitConfig
from gamecraft_core.dit.embed import patchify
from gamecraft_core.dit.stream import Grid, Stream
from gamecraft_core.dit.trunk import Trunk
from gamecraft_core.families.denoiser import LastTokens, TokensAt


def input_channels(config: DitConfig) -> int:
    """Channels of such an input, 33 of the published models: noisy latents, history latents, mask."""
    return 2 * config.in_channels + 1


def with_history(past: Tensor, latents: Tensor) -> Tensor:
    """The model input [33, T, h, w]: history before new latents, history before zeros, 1 before 0."""
    video = torch.cat([past, latents], dim=1)
    clean = torch.cat([past, torch.zeros_like(latents)], dim=1)
    mask = torch.zeros_like(video[:1])
    mask[:, : past.shape[1]] = 1
    return torch.cat([video, clean, mask])


def tokens_after(model: Trunk, past: Tensor, blank: Tensor, stream: Stream, patch: Grid) -> TokensAt:
    """What makes tokens of latents like ``blank``, the zeros in their place, after ``past`` [16, T_history, h, w]."""
    constant = model.img_in(stream.shard.take(patchify(with_history(past, blank), patch)))
    return LastTokens(model.img_in, constant, stream, patch).at

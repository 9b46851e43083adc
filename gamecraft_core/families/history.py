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
from gamecraft_core.parallel.shard import pad_rows


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


class ChunkTokens:
    """Patch tokens of this rank in one denoise call; what history, mask and bias give them is made once."""

    def __init__(self, model: Trunk, past: Tensor, blank: Tensor, stream: Stream, patch: Grid) -> None:
        """``past`` [16, T_history, h, w] and zeros in place of the latents to come."""
        self._embed, self._stream, self._patch = model.img_in, stream, patch
        self._constant: Tensor = model.img_in(stream.shard.take(patchify(with_history(past, blank), patch)))

    def at(self, latents: Tensor) -> Tensor:
        """Tokens [local, hidden] with ``latents`` [16, T_new, h, w] after the history."""
        shard = self._stream.shard
        patches = patchify(latents, self._patch)
        patches = shard.take(pad_rows(patches, shard.total, front=shard.total - len(patches)))
        tokens = self._constant.clone()
        tokens[self._stream.kept] += self._embed.change(patches[self._stream.kept])
        return tokens

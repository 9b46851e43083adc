"""Joint attention of video and text over a group of ranks: Ulysses, with one collective each way.

Every rank holds a shard of the video rows and all text rows, with all heads. For the attention it trades rows for
heads: it gets all video rows of its share of the heads (q, k and v in one exchange), attends, and trades back
(video rows of everyone, and its heads of the text, in one exchange). Rows that pad the last shard are cut before the
attention and heads that pad the head count give zeros, so neither changes a result. Method: DeepSpeed-Ulysses
(Jacobs et al., 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gamecraft_core.attention.kernel import Kernel
from gamecraft_core.parallel.collective import Collective
from gamecraft_core.parallel.shard import Shard, pad_rows


class JointAttention:
    """Attention over [local video rows, text rows]; the text is the same on every rank."""

    def __init__(self, kernel: Kernel, collective: Collective) -> None:
        self.kernel = kernel
        self.collective = collective

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, shard: Shard, keep: int | None = None) -> Tensor:
        """Attend q, k, v [local + text, heads, head_dim]; returns the same rows as [rows, heads * head_dim].

        With ``keep`` only video rows from global row ``keep`` on are asked for: ``q`` and the answer hold this rank's
        rows of these, the last ``shard.local - shard.local_index(keep)`` of its video rows.
        """
        if shard.world == 1:
            return self.kernel(q, k, v).flatten(1)
        heads, first = q.shape[1], 0 if keep is None else shard.local_index(keep)
        if keep is not None:
            q = pad_rows(q, len(k), front=first)
        q, k, v = self._gather_rows(q, k, v, shard)
        if keep is None:
            result = self.kernel(q, k, v)
            video, text = result[: shard.total], result[shard.total :]
            return self._gather_heads(pad_rows(video, shard.padded), text, shard, heads)
        video = pad_rows(self.kernel(q[keep : shard.total], k, v), shard.padded, front=keep)
        return self._gather_heads(video, video[:0], shard, heads)[first:]

    def _gather_rows(self, q: Tensor, k: Tensor, v: Tensor, shard: Shard) -> Tensor:
        """Each [local + text, heads, d] to one [3, total + text, own heads, d]; heads are padded to divide."""
        rows, heads, dim = k.shape
        own = -(-heads // shard.world)
        by_rank = k.new_zeros(3, shard.world * own, rows, dim)
        for part, heads_of in zip(by_rank, (q, k, v), strict=True):
            part[:heads] = heads_of.transpose(0, 1)
        by_rank = by_rank.view(3, shard.world, own, rows, dim).transpose(0, 1)
        received = self.collective.all_to_all(by_rank[:, :, :, : shard.local])
        joint = k.new_empty(3, own, shard.padded + rows - shard.local, dim)
        joint[:, :, : shard.padded].view(3, own, shard.world, shard.local, dim).copy_(received.permute(1, 2, 0, 3, 4))
        joint[:, :, shard.total : shard.total + rows - shard.local] = by_rank[shard.rank, :, :, shard.local :]
        return joint[:, :, : shard.total + rows - shard.local].transpose(1, 2)

    def _gather_heads(self, video: Tensor, text: Tensor, shard: Shard, heads: int) -> Tensor:
        """Own heads of video [padded, own, d] and text [text, own, d] to [local + text, heads * d]."""
        by_rank = video.reshape(shard.world, shard.local, *video.shape[1:])
        everyones_text = text.expand(shard.world, *text.shape)
        received = self.collective.all_to_all(torch.cat([by_rank, everyones_text], dim=1))
        return received.transpose(0, 1).flatten(1, 2)[:, :heads].flatten(1)

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
from torch.nn import functional as F

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

        With ``keep`` only video rows from global row ``keep`` on are asked for: [rows of these on this rank, ...].
        """
        if shard.world == 1:
            queries = q if keep is None else q[keep : shard.total]
            return self.kernel(queries, k, v).flatten(1)
        heads = q.shape[1]
        q, k, v = self._gather_rows(torch.stack([q, k, v]), shard)
        if keep is None:
            result = self.kernel(q, k, v)
            video, text = result[: shard.total], result[shard.total :]
            return self._gather_heads(pad_rows(video, shard.padded), text, shard, heads)
        video = pad_rows(self.kernel(q[keep : shard.total], k, v), shard.padded, front=keep)
        return self._gather_heads(video, video[:0], shard, heads)[shard.local_index(keep) :]

    def _gather_rows(self, qkv: Tensor, shard: Shard) -> Tensor:
        """[3, local + text, heads, d] to [3, total + text, own heads, d]; heads are padded to divide."""
        heads = qkv.shape[2]
        own = -(-heads // shard.world)
        qkv = F.pad(qkv, (0, 0, 0, own * shard.world - heads))
        by_rank = qkv.reshape(3, -1, shard.world, own, qkv.shape[-1]).permute(2, 0, 1, 3, 4)
        text = by_rank[shard.rank, :, shard.local :]
        received = self.collective.all_to_all(by_rank[:, :, : shard.local])
        video = received.transpose(0, 1).flatten(1, 2)[:, : shard.total]
        return torch.cat([video, text], dim=1)

    def _gather_heads(self, video: Tensor, text: Tensor, shard: Shard, heads: int) -> Tensor:
        """Own heads of video [padded, own, d] and text [text, own, d] to [local + text, heads * d]."""
        by_rank = video.reshape(shard.world, shard.local, *video.shape[1:])
        everyones_text = text.expand(shard.world, *text.shape)
        received = self.collective.all_to_all(torch.cat([by_rank, everyones_text], dim=1))
        return received.transpose(0, 1).flatten(1, 2)[:, :heads].flatten(1)

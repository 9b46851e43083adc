"""The trunk's blocks: double-stream, single-stream, and the final layer. Key names are the published ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.dit.heads import empty_heads, heads_of, write_heads_
from gamecraft_core.dit.layers import MLP, Linear, Modulation, RMSNorm, add_gated_, modulated_norm
from gamecraft_core.dit.stream import Stream


class DoubleBlock(nn.Module):
    """Video and text with weights of their own, meeting in one attention."""

    def __init__(self, hidden: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        mlp_hidden = int(hidden * mlp_ratio)
        self.img_mod = Modulation(hidden, 6)
        self.img_attn_qkv = Linear(hidden, 3 * hidden)
        self.img_attn_q_norm = RMSNorm(hidden // heads)
        self.img_attn_k_norm = RMSNorm(hidden // heads)
        self.img_attn_proj = Linear(hidden, hidden)
        self.img_mlp = MLP(hidden, mlp_hidden)
        self.txt_mod = Modulation(hidden, 6)
        self.txt_attn_qkv = Linear(hidden, 3 * hidden)
        self.txt_attn_q_norm = RMSNorm(hidden // heads)
        self.txt_attn_k_norm = RMSNorm(hidden // heads)
        self.txt_attn_proj = Linear(hidden, hidden)
        self.txt_mlp = MLP(hidden, mlp_hidden)
        self._heads = heads

    def modulations(self, vectors: Tensor) -> Tensor:
        """[steps, hidden] to [steps, 12, hidden]: shift, scale, gate of attention and MLP, for video, then text."""
        return torch.cat([self.img_mod(vectors), self.txt_mod(vectors)], dim=1)

    def forward(
        self, img: Tensor, txt: Tensor, stream: Stream, modulation: Tensor, attend: JointAttention
    ) -> tuple[Tensor, Tensor]:
        """``img`` [local, hidden] and ``txt`` [text, hidden] become what they are after the block, in place."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation[:6]
        txt_shift, txt_scale, txt_gate, txt_shift_mlp, txt_scale_mlp, txt_gate_mlp = modulation[6:]
        local = len(img)

        features = self.img_attn_qkv(modulated_norm(img, shift, scale))
        qkv = empty_heads(3, local + len(txt), self._heads, features)
        write_heads_(qkv[:, :local], features, (self.img_attn_q_norm, self.img_attn_k_norm), stream.rope)
        features = self.txt_attn_qkv(modulated_norm(txt, txt_shift, txt_scale))
        write_heads_(qkv[:, local:], features, (self.txt_attn_q_norm, self.txt_attn_k_norm), None)
        q, k, v = qkv
        attended = attend(q, k, v, stream.shard)

        add_gated_(img, gate, self.img_attn_proj(attended[:local]))
        add_gated_(img, gate_mlp, self.img_mlp(modulated_norm(img, shift_mlp, scale_mlp)))
        add_gated_(txt, txt_gate, self.txt_attn_proj(attended[local:]))
        add_gated_(txt, txt_gate_mlp, self.txt_mlp(modulated_norm(txt, txt_shift_mlp, txt_scale_mlp)))
        return img, txt


class SingleBlock(nn.Module):
    """Video and text as one sequence; attention and MLP side by side."""

    def __init__(self, hidden: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        mlp_hidden = int(hidden * mlp_ratio)
        self.linear1 = Linear(hidden, 3 * hidden + mlp_hidden)
        self.linear2 = Linear(hidden + mlp_hidden, hidden)
        self.q_norm = RMSNorm(hidden // heads)
        self.k_norm = RMSNorm(hidden // heads)
        self.modulation = Modulation(hidden, 3)
        self._heads = heads

    def modulations(self, vectors: Tensor) -> Tensor:
        """[steps, hidden] to [steps, 3, hidden]: shift, scale, gate."""
        result: Tensor = self.modulation(vectors)
        return result

    def forward(self, x: Tensor, stream: Stream, modulation: Tensor, attend: JointAttention) -> Tensor:
        """Joint tokens ``x`` [local + text, hidden] become what they are after the block, in place."""
        shift, scale, gate = modulation
        normed = modulated_norm(x, shift, scale)
        qkv = self.linear1.part(normed, 0, 3 * x.shape[-1])
        q, k, v = heads_of(qkv, 3, self._heads, (self.q_norm, self.k_norm), stream.rope)
        del qkv  # the largest tensor here: what follows takes its memory
        attended = attend(q, k, v, stream.shard)
        return add_gated_(x, gate, self._mix(attended, normed))

    def last(self, x: Tensor, stream: Stream, modulation: Tensor, attend: JointAttention) -> Tensor:
        """The rows that ``stream`` keeps after the block; ``x``, which a step cache may hold, stays as it is."""
        shift, scale, gate = modulation
        rows, hidden = stream.kept, x.shape[-1]
        normed = modulated_norm(x, shift, scale)
        (q,) = heads_of(self.linear1.part(normed[rows], 0, hidden), 1, self._heads, (self.q_norm,), stream.rope[rows])
        k, v = heads_of(self.linear1.part(normed, hidden, 3 * hidden), 2, self._heads, (self.k_norm,), stream.rope)
        attended = attend(q, k, v, stream.shard, stream.keep)
        return torch.addcmul(x[rows], gate, self._mix(attended, normed[rows]))

    def _mix(self, attended: Tensor, normed: Tensor) -> Tensor:
        """The second linear over attention and MLP, side by side."""
        expanded = self.linear1.gelu(normed, 3 * normed.shape[-1])
        result: Tensor = self.linear2(torch.cat([attended, expanded], dim=-1))
        return result


class FinalLayer(nn.Module):
    """Modulated norm and the projection to patch values; the projection stays float32 in mixed precision."""

    def __init__(self, hidden: int, values: int) -> None:
        super().__init__()
        self.linear = Linear(hidden, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(hidden, 2 * hidden))

    def modulations(self, vectors: Tensor) -> Tensor:
        """[steps, hidden] to [steps, 2, hidden]: shift, scale."""
        result: Tensor = self.adaLN_modulation(vectors)
        return result.view(len(vectors), 2, -1)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation
        result: Tensor = self.linear(modulated_norm(x, shift, scale))
        return result

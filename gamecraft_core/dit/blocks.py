"""The trunk's blocks: double-stream, single-stream, and the final layer. Key names are the published ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.dit.layers import (
    MLP,
    Linear,
    Modulation,
    RMSNorm,
    gated,
    gelu,
    modulated_norm,
    split_heads,
)
from gamecraft_core.dit.rope import rotate_
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

    def forward(
        self, img: Tensor, txt: Tensor, stream: Stream, vector: Tensor, attend: JointAttention
    ) -> tuple[Tensor, Tensor]:
        """``img`` [local, hidden] and ``txt`` [text, hidden] after the block."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.img_mod(vector)
        txt_shift, txt_scale, txt_gate, txt_shift_mlp, txt_scale_mlp, txt_gate_mlp = self.txt_mod(vector)

        q, k, v = split_heads(self.img_attn_qkv(modulated_norm(img, shift, scale)), self._heads)
        tq, tk, tv = split_heads(self.txt_attn_qkv(modulated_norm(txt, txt_shift, txt_scale)), self._heads)
        joint_q = torch.cat([self.img_attn_q_norm(q), self.txt_attn_q_norm(tq)])
        joint_k = torch.cat([self.img_attn_k_norm(k), self.txt_attn_k_norm(tk)])
        rotate_(joint_q, stream.rope)
        rotate_(joint_k, stream.rope)
        attended = attend(joint_q.to(v.dtype), joint_k.to(v.dtype), torch.cat([v, tv]), stream.shard)

        img = gated(img, gate, self.img_attn_proj(attended[: len(img)]))
        img = gated(img, gate_mlp, self.img_mlp(modulated_norm(img, shift_mlp, scale_mlp)))
        txt = gated(txt, txt_gate, self.txt_attn_proj(attended[len(img) :]))
        txt = gated(txt, txt_gate_mlp, self.txt_mlp(modulated_norm(txt, txt_shift_mlp, txt_scale_mlp)))
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

    def forward(
        self, x: Tensor, stream: Stream, vector: Tensor, attend: JointAttention, *, last: bool = False
    ) -> Tensor:
        """Joint tokens [local + text, hidden] after the block; the ``last`` one makes only what ``stream`` keeps."""
        rows = stream.kept if last else slice(None)
        shift, scale, gate = self.modulation(vector)
        normed = modulated_norm(x, shift, scale)
        split = 3 * x.shape[-1]
        q, k, v = split_heads(self.linear1.part(normed, 0, split), self._heads)
        q, k = self.q_norm(q), self.k_norm(k)
        rotate_(q, stream.rope)
        rotate_(k, stream.rope)
        attended = attend(q.to(v.dtype), k.to(v.dtype), v, stream.shard, stream.keep if last else None)
        expanded = gelu(self.linear1.part(normed[rows], split))
        return gated(x[rows], gate, self.linear2(torch.cat([attended, expanded], dim=-1)))


class FinalLayer(nn.Module):
    """Modulated norm and the projection to patch values; the projection stays float32 in mixed precision."""

    def __init__(self, hidden: int, values: int) -> None:
        super().__init__()
        self.linear = Linear(hidden, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(hidden, 2 * hidden))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vector).chunk(2)
        result: Tensor = self.linear(modulated_norm(x, shift, scale))
        return result
